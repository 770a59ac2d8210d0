"""What machine this is, as far as it can decide a result: processor, memory, graphics cards, thread counts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from runproj.core.record import Machine

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS",
    "OMP_DYNAMIC",
    "MKL_DYNAMIC",
    "OPENBLAS_CORETYPE",
    "MKL_CBWR",
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "TF_DETERMINISTIC_OPS",
    "TF_CUDNN_DETERMINISTIC",
    "TF_CUDNN_USE_AUTOTUNE",
    "TF_ENABLE_ONEDNN_OPTS",
    "XLA_FLAGS",
    "PYTHONHASHSEED",
)
"""Variables that change how many threads or which kernels numerical libraries use."""


def describe(environ: Mapping[str, str]) -> Machine:
    """This machine.  Starts no process: what is not in `/proc` is left empty."""
    system = os.uname()
    return Machine(
        host=system.nodename,
        system=_distribution(),
        kernel=system.release,
        architecture=system.machine,
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        libc=os.confstr("CS_GNU_LIBC_VERSION") or "" if "CS_GNU_LIBC_VERSION" in os.confstr_names else "",
        gpus=_gpus(),
        gpu_driver=_first_line(Path("/proc/driver/nvidia/version")),
        threads=tuple((name, environ[name]) for name in THREAD_VARIABLES if name in environ),
    )


def _first_line(path: Path) -> str:
    try:
        with path.open(errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return ""


def _distribution() -> str:
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return os.uname().sysname
    pairs = dict(line.split("=", 1) for line in lines if "=" in line)
    return pairs.get("PRETTY_NAME", os.uname().sysname).strip('"')


def _cpu() -> str:
    try:
        with Path("/proc/cpuinfo").open() as file:
            for line in file:
                if line.startswith(("model name", "Model", "cpu model")):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return os.uname().machine


def _gpus() -> tuple[str, ...]:
    found = []
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        lines = path.read_text(errors="replace").splitlines()
        found += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return tuple(found)

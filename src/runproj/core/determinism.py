"""The determinism profile: variables that take away what makes two runs of the same code differ, as far as variables can.

Sources: CUDA C++ cuBLAS documentation (results reproducibility), MKL developer guide (conditional numerical reproducibility),
TensorFlow's `enable_op_determinism`, reproducible-builds.org (SOURCE_DATE_EPOCH).
"""

from __future__ import annotations

import datetime

from runproj.core.plan import Plan
from runproj.core.project import ParameterType

_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_SWITCHES = {
    "OMP_DYNAMIC": "FALSE",
    "MKL_DYNAMIC": "FALSE",
    "MKL_CBWR": "COMPATIBLE",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "TF_DETERMINISTIC_OPS": "1",
    "TF_CUDNN_DETERMINISTIC": "1",
    "TF_CUDNN_USE_AUTOTUNE": "0",
    "TZ": "UTC",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
}
_LARGEST_HASH_SEED = 4294967295


def profile(plan: Plan) -> dict[str, str]:
    """The variables to set before the interpreter starts; none where the plan does not ask for it."""
    if not plan.options.deterministic:
        return {}
    seed = next((value.value for value in plan.call.values if value.type is ParameterType.SEED and value.value), "0")
    return {
        "PYTHONHASHSEED": _hash_seed(seed),
        **dict.fromkeys(_THREADS, "1"),
        **_SWITCHES,
        "SOURCE_DATE_EPOCH": _epoch(plan.code.committed_at),
    }


def _hash_seed(text: str) -> str:
    """What Python takes as one; 0, which turns the hash's randomness off, where the project's seed is none."""
    try:
        number = int(text)
    except ValueError:
        return "0"
    return str(number) if 0 <= number <= _LARGEST_HASH_SEED else "0"


def _epoch(committed_at: str | None) -> str:
    """The commit's time, for programs that write the time into files; 1980, the first year of zip archives, without one."""
    moment = datetime.datetime.fromisoformat(committed_at or "1980-01-01T00:00:00+00:00")
    return str(int(moment.timestamp()))

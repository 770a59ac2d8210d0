"""conda's names and versions → PyPI's, for projects whose conda.yaml is installed from the package index."""

from __future__ import annotations

import re

from runproj.core.values import dataclass

RENAMED: dict[str, str] = {
    "_py-xgboost-mutex": "",
    "antlr-python-runtime": "antlr4-python3-runtime",
    "astropy-base": "astropy",
    "bokeh-base": "bokeh",
    "catboost-gpu": "catboost",
    "dask-core": "dask",
    "duckdb-python": "duckdb",
    "faiss": "faiss-cpu",
    "hydra": "hydra-core",
    "imagecodecs-lite": "imagecodecs",
    "importlib_metadata": "importlib-metadata",
    "importlib_resources": "importlib-resources",
    "jupyter_client": "jupyter-client",
    "jupyter_core": "jupyter-core",
    "keras-base": "keras",
    "keras-gpu": "keras",
    "lightgbm-gpu": "lightgbm",
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "numpy-base": "numpy",
    "opencv": "opencv-python",
    "opt_einsum": "opt-einsum",
    "prompt_toolkit": "prompt-toolkit",
    "py-opencv": "opencv-python",
    "py-xgboost": "xgboost",
    "py-xgboost-cpu": "xgboost",
    "py-xgboost-gpu": "xgboost",
    "pyarrow-core": "pyarrow",
    "pyqt": "PyQt5",
    "pyspark-base": "pyspark",
    "pytables": "tables",
    "python-annoy": "annoy",
    "python-blosc": "blosc",
    "python-confluent-kafka": "confluent-kafka",
    "python-duckdb": "duckdb",
    "python-eccodes": "eccodes",
    "python-fastjsonschema": "fastjsonschema",
    "python-flatbuffers": "flatbuffers",
    "python-graphviz": "graphviz",
    "python-igraph": "igraph",
    "python-kaleido": "kaleido",
    "python-levenshtein": "Levenshtein",
    "python-libarchive-c": "libarchive-c",
    "python-lmdb": "lmdb",
    "python-tblib": "tblib",
    "python-tzdata": "tzdata",
    "python-wget": "wget",
    "python-xxhash": "xxhash",
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "pytorch-gpu": "torch",
    "ray-core": "ray",
    "ray-default": "ray[default]",
    "ray-rllib": "ray[rllib]",
    "ray-tune": "ray[tune]",
    "ruamel_yaml": "ruamel.yaml",
    "seaborn-base": "seaborn",
    "snakemake-minimal": "snakemake",
    "tensorflow-base": "tensorflow",
    "tensorflow-eigen": "tensorflow",
    "tensorflow-mkl": "tensorflow",
    "torchvision-cpu": "torchvision",
    "typing_extensions": "typing-extensions",
    "umap": "umap-learn",
    "xgboost-cpu": "xgboost",
    "xgboost-gpu": "xgboost",
}
"""Where the names differ.  An empty name is a helper of conda's that needs no counterpart."""

_NOT_PYTHON = """
_libgcc_mutex _openmp_mutex anaconda-client arrow-cpp atlas autoconf automake binutils blas boost boost-cpp bzip2
c-compiler ca-certificates cairo clang clangxx cmake-bin compilers conda conda-build cpuonly cuda cuda-cudart cuda-nvcc
cuda-runtime cuda-toolkit cuda-version cudatoolkit cudatoolkit-dev cudnn cupti curl cxx-compiler eigen expat ffmpeg
fontconfig fortran-compiler freetype gcc gcc_linux-64 gdal-bin geos gfortran gfortran_linux-64 git git-lfs glib graphviz
grpc-cpp gxx gxx_linux-64 hdf5 icu intel-openmp jpeg krb5 ld_impl_linux-64 libblas libcblas libcurl libffi libgcc
libgcc-ng libgfortran libgfortran-ng libgfortran5 libgomp libjpeg-turbo liblapack libllvm libnetcdf libopenblas libpng
libpq libprotobuf libpython libsodium libsqlite libstdcxx libstdcxx-ng libtiff libtool libuuid libuv libwebp libxml2
libxslt llvm llvm-openmp llvmdev lz4-c m2w64-toolchain make mamba maven mkl mkl-include mkl-service mkl_fft mkl_random
mpi mpich mysql mysql-libs nccl ncurses netcdf4-c ninja-bin nodejs nomkl nvcc openblas openjdk openmpi openssl pango
pcre pkg-config poppler postgresql proj python_abi pytorch-cuda pytorch-mutex qt qt-main r-base r-essentials re2
readline sip snappy sqlite swig system tbb tesseract tk ucrt unixodbc vc vs2015_runtime wget xorg-libx11 xz yarn zeromq
zlib zstd
"""
NOT_PYTHON = frozenset(_NOT_PYTHON.split())
"""Programs and libraries of the system that conda packs and the package index does not, and what is conda's own."""

_SPEC = re.compile(r"^(?:(?P<channel>[^:\s]+)::)?(?P<name>[A-Za-z0-9_][\w.-]*)\s*(?:\[(?P<bracket>[^\]]*)\])?\s*(?P<version>.*)$")
_CLAUSE = re.compile(r"^(?P<operator>===?|!=|~=|>=|<=|>|<|=)?\s*(?P<version>[\w.!+*-]+)$")


@dataclass(frozen=True)
class Mapped:
    """Dependencies in pip's words, the interpreter wish that was among them, and what has no counterpart."""

    requirements: tuple[str, ...] = ()
    python: str | None = None
    notes: tuple[str, ...] = ()


def translate(dependencies: tuple[str, ...]) -> Mapped:
    """The requirements of conda's `dependencies` (without its `pip:` part)."""
    lines: list[str] = []
    left: list[str] = []
    renamed: list[str] = []
    python: str | None = None
    for text in dependencies:
        found = _SPEC.match(text.strip())
        name = found["name"].lower() if found else ""
        if found is None or name in NOT_PYTHON or (name.startswith(("r-", "lib")) and name not in _PYTHON_LIBS):
            left.append(text.strip())
            continue
        version, bracketed = _version(found["version"]), _bracket(found["bracket"] or "")
        specifier = version or bracketed
        if name == "python":
            python = _python(specifier) or python
            continue
        ours = RENAMED.get(name, name)
        if not ours:
            continue
        if ours.lower() != name:
            renamed.append(f"{name} → {ours}")
        lines.append(f"{ours}{specifier}")
    return Mapped(tuple(lines), python, _notes(lines, left, renamed))


_PYTHON_LIBS = frozenset({"librosa", "libsvm", "libclang", "libcst", "libsass", "libtmux", "libarchive-c", "libtorrent"})
"""Python packages that begin as libraries do."""


def _notes(lines: list[str], left: list[str], renamed: list[str]) -> tuple[str, ...]:
    notes: list[str] = []
    if lines:
        names = f" ({', '.join(renamed)})" if renamed else ""
        notes.append(f"The conda dependencies are installed from the Python package index{names}.")
    if left:
        notes.append(
            f"Not on the Python package index, and left out: {', '.join(left)}. Install what is needed of it on this machine."
        )
    return tuple(notes)


def _bracket(text: str) -> str:
    """The version in `name[version='>=1.2']`."""
    found = re.search(r"version\s*=\s*['\"]?([^'\"]+)['\"]?", text)
    return _version(found[1]) if found else ""


def _version(text: str) -> str:
    """A PEP 440 specifier of conda's: `=1.14` means 1.14.*, `=1.14.3=py36_0` and `1.14.3 py36_0` mean 1.14.3."""
    text = text.strip()
    if not text or text == "*":
        return ""
    if exact := re.match(r"^(={1,2})?\s*([\w.!+]+)\s*(?:=|\s+(?![<>=!~|,]))\s*[\w*.]+$", text):
        return f"=={exact[2]}"  # with a build string, which only conda knows
    text = text.rpartition("|")[2].strip()  # of alternatives the last, which is the newest by custom
    text = re.sub(r"(?<=[\w*])\s+[\w.*]+$", "", text)  # a build string after a blank
    clauses: list[str] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        found = _CLAUSE.match(part)
        if found is None:
            return ""
        clauses.append(_clause(found["operator"] or "", found["version"]))
    return ",".join(filter(None, clauses))


def _clause(operator: str, version: str) -> str:
    bare = version.removesuffix("*").removesuffix(".")
    if not bare:
        return ""
    if operator == "=":
        return f"=={bare}.*"
    if operator == "":
        return f"=={bare}.*" if version.endswith("*") else f"=={version}"
    if version.endswith("*") and operator not in ("==", "!="):
        return f"{operator}{bare}"
    return f"{operator}{version}"


def _python(specifier: str) -> str | None:
    """The interpreter wish: plain where it is one version."""
    if not specifier:
        return None
    single = re.fullmatch(r"==(\d+(?:\.\d+)*)(\.\*)?", specifier)
    return single[1] if single else specifier

"""What a project's last words mean where its environment is to blame, and the command that helps."""

from __future__ import annotations

import re

PYPI_NAMES: dict[str, str] = {
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "Bio": "biopython",
    "cairo": "pycairo",
    "cattr": "cattrs",
    "community": "python-louvain",
    "Crypto": "pycryptodome",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "discord": "discord.py",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "faiss": "faiss-cpu",
    "fitz": "PyMuPDF",
    "flask_cors": "Flask-Cors",
    "git": "GitPython",
    "github": "PyGithub",
    "gi": "PyGObject",
    "graphviz": "graphviz",
    "gym": "gym",
    "hydra": "hydra-core",
    "igraph": "python-igraph",
    "imblearn": "imbalanced-learn",
    "jose": "python-jose",
    "jwt": "PyJWT",
    "kafka": "kafka-python",
    "Levenshtein": "python-Levenshtein",
    "lightning": "lightning",
    "ldap": "python-ldap",
    "lxml": "lxml",
    "magic": "python-magic",
    "markdown": "Markdown",
    "memcache": "python-memcached",
    "mpl_toolkits": "matplotlib",
    "MySQLdb": "mysqlclient",
    "nacl": "PyNaCl",
    "nmap": "python-nmap",
    "numpy.typing": "numpy",
    "opentelemetry": "opentelemetry-api",
    "osgeo": "GDAL",
    "past": "future",
    "PIL": "Pillow",
    "pkg_resources": "setuptools<81",
    "pl_bolts": "lightning-bolts",
    "psycopg2": "psycopg2-binary",
    "pydot": "pydot",
    "pylab": "matplotlib",
    "pymysql": "PyMySQL",
    "pytorch_lightning": "pytorch-lightning",
    "ruamel": "ruamel.yaml",
    "serial": "pyserial",
    "sentence_transformers": "sentence-transformers",
    "setuptools": "setuptools<81",
    "distutils": "setuptools<81",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "skopt": "scikit-optimize",
    "slugify": "python-slugify",
    "socks": "PySocks",
    "spacy_transformers": "spacy-transformers",
    "tables": "tables",
    "talib": "TA-Lib",
    "tensorflow_datasets": "tensorflow-datasets",
    "umap": "umap-learn",
    "usb": "pyusb",
    "wx": "wxPython",
    "xgboost": "xgboost",
    "yaml": "PyYAML",
    "zmq": "pyzmq",
    "google.cloud.storage": "google-cloud-storage",
    "google.cloud.bigquery": "google-cloud-bigquery",
    "google.protobuf": "protobuf",
    "azure.storage.blob": "azure-storage-blob",
}
"""Modules whose package has another name on the index."""

_MISSING = re.compile(r"(?:ModuleNotFoundError|ImportError): No module named '?([\w.]+)'?")

_KNOWN: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (
        re.compile(r"Descriptors cannot (?:not )?be created directly"),
        "Code generated for an older protobuf meets a newer one",
        "protobuf<4",
    ),
    (
        re.compile(r"module 'numpy' has no attribute '(?:float|int|bool|object|str|complex|typeDict|long|unicode)'"),
        "The code uses names that numpy 1.24 removed",
        "numpy<1.24",
    ),
    (
        re.compile(
            r"numpy\.dtype size changed|compiled using NumPy 1\.x cannot be run in|numpy\.core\.multiarray failed to import|"
            r"`np\.\w+` was removed in the NumPy 2\.0 release|_ARRAY_API not found"
        ),
        "A package was compiled for another numpy than the one that is installed",
        "numpy<2",
    ),
    (
        re.compile(r"cannot import name '(?:soft_unicode|escape|Markup|contextfilter|evalcontextfilter|environmentfilter)'"),
        "Jinja2 or MarkupSafe is newer than the code that uses it",
        "jinja2<3.1' --with 'markupsafe<2.1",
    ),
    (
        re.compile(r"cannot import name '(?:url_quote|url_decode|safe_str_cmp|url_encode|BaseResponse)' from 'werkzeug"),
        "Werkzeug is newer than the code that uses it",
        "werkzeug<2.1",
    ),
    (
        re.compile(r"cannot import name '(?:Mapping|MutableMapping|Sequence|Iterable|Callable|Hashable)' from 'collections'"),
        "The code was written for a Python before 3.10",
        "",
    ),
    (
        re.compile(r"'DataFrame' object has no attribute '(?:append|iteritems|ix)'|has no attribute 'Int64Index'"),
        "The code uses what pandas 2 removed",
        "pandas<2",
    ),
    (
        re.compile(r"cannot import name 'joblib' from 'sklearn\.externals'|No module named 'sklearn\.externals"),
        "The code uses what scikit-learn 0.23 removed",
        "scikit-learn<0.23",
    ),
    (
        re.compile(
            r"module 'tensorflow' has no attribute '(?:placeholder|Session|ConfigProto|get_default_graph|contrib|flags|app)'"
        ),
        "The code was written for TensorFlow 1",
        "tensorflow<2",
    ),
    (
        re.compile(
            r"No module named 'sqlalchemy\.\w+|module 'sqlalchemy' has no attribute|cannot import name '\w+' from 'sqlalchemy"
        ),
        "SQLAlchemy is newer or older than the code that uses it",
        "sqlalchemy<2",
    ),
    (
        re.compile(r"urllib3 v2(?:\.0)? only supports OpenSSL|cannot import name 'DEFAULT_CIPHERS' from 'urllib3"),
        "urllib3 is newer than the code that uses it",
        "urllib3<2",
    ),
)


def explain_failure(stderr_tail: str) -> str | None:
    """One or two sentences with the command that helps, where the end of standard error tells; None where it does not."""
    if "--with" in stderr_tail and "runproj" in stderr_tail:
        return None  # a run inside has said so already
    for pattern, why, package in _KNOWN:
        if pattern.search(stderr_tail):
            return _advice(why, package)
    missing = _MISSING.findall(stderr_tail)
    return _missing(missing[-1]) if missing else None


def _advice(why: str, package: str) -> str:
    if not package:
        return f"{why}. Run it with the versions of its time: `--as-of commit`, and name that Python in python_env.yaml."
    return f"{why}. Run it again with `--with '{package}'`."


def _missing(module: str) -> str:
    package = package_of(module)
    if module.startswith("pkg_resources"):
        return f"setuptools no longer brings {module}. Run it again with `--with '{package}'`."
    shown = f"'{package}'" if "<" in package else package
    return (
        f"The module {module!r} is not in the environment. If a package provides it, run it again with `--with {shown}`, "
        "and declare it in the project."
    )


def package_of(module: str) -> str:
    """The name on the index of the package that provides a module."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if name := PYPI_NAMES.get(".".join(parts[:length])):
            return name
    return parts[0].replace("_", "-") if parts[0].islower() else parts[0]

"""EnvSpec from the files of a project.

The order, first found wins, each more exact than the next: the header of the entry script (PEP 723: it belongs to what is
run), `pylock.toml` and `uv.lock` (exact versions), `python_env.yaml` and `conda.yaml`/`environment.yml` (made for running
projects), `requirements.txt`, `pyproject.toml` (made for installing a package).  `.python-version` and `runtime.txt` name the
interpreter where that declaration names none, or only a range.  With nothing at all, the environment is empty.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from runproj.core.environment import EnvManager, EnvSpec
from runproj.descriptor.yaml_nodes import Node, Shape, YamlError, load_file, read_bounded
from runproj.errors import DescriptorError

_HEADER = re.compile(r"(?m)^# /// script$\s(?P<content>(?:^#(?:| .*)$\s)+)^# ///$")  # as given in PEP 723
_HEAD = 64 * 1024
_VERSION = re.compile(r"\d+(\.\d+){0,2}((a|b|rc)\d+)?")


def find_environment(project: Path, script: str | None = None) -> EnvSpec:
    """The environment that the project's files ask for.  Raises `DescriptorError` for a file that cannot be read."""
    spec = _from_header(project, script) if script else None
    for name, reader in _KNOWN.items():
        if spec is None and (project / name).is_file() and not _made_from_others(project, name):
            spec = reader(project, name)
    return with_interpreter(spec or EnvSpec(), project)


def _made_from_others(project: Path, name: str) -> bool:
    """Whether it is a lock that `runproj lock` made from another file that is here: what that file says decides."""
    if name != "pylock.toml" or not any((project / other).is_file() for other in _KNOWN if other not in (name, "uv.lock")):
        return False
    with inside(project, name).open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _HEAD))
        return b"\n[tool.runproj]\n" in file.read()


def from_file(project: Path, name: str) -> EnvSpec:
    """The environment that a named file asks for; its kind is told by its name.  Raises `DescriptorError`."""
    base = PurePosixPath(name).name.lower()
    if base == "uv.lock" or re.fullmatch(r"pylock(\..+)?\.toml", base):
        reader: Callable[[Path, str], EnvSpec | None] = from_lock
    elif base == "pyproject.toml":
        reader = from_pyproject
    elif base.endswith((".yaml", ".yml")):
        reader = _from_yaml
    else:
        reader = from_requirements
    spec = reader(project, name)
    if spec is None:
        raise DescriptorError(f"{name} declares no environment")
    return with_interpreter(spec, project)


def with_interpreter(spec: EnvSpec, project: Path) -> EnvSpec:
    """Take the interpreter from `.python-version` or `runtime.txt` where the declaration names none, or only a range."""
    if spec.docker or (spec.python and _VERSION.fullmatch(spec.python)):
        return spec
    for name in (".python-version", "runtime.txt"):
        if (project / name).is_file():
            lines = [line.strip() for line in read_text(project, name).splitlines()]
            words = [line for line in lines if line and not line.startswith("#")]
            version = re.sub(r"^(python|cpython)[-@]?", "", words[0]) if words else ""
            if _VERSION.fullmatch(version):
                origin = name if spec.origin == EnvSpec().origin else f"{spec.origin}, {name}"
                return replace(spec, python=version, origin=origin)
            note = f"{name} names {version or 'nothing'!r}, which is no Python version, and was left aside."
            spec = replace(spec, notes=(*spec.notes, note))
    return spec


def read_text(project: Path, name: str) -> str:
    """A file of the project, which must not be outside of its repository.  Raises `DescriptorError`."""
    try:
        return read_bounded(inside(project, name), name).decode("utf-8-sig")
    except YamlError as error:
        raise DescriptorError(str(error.problem)) from error
    except UnicodeDecodeError as error:
        raise DescriptorError(f"{name} is not UTF-8 text") from error


def inside(project: Path, name: str) -> Path:
    """The path of a file that exists in the project's repository.  Raises `DescriptorError`."""
    path = project / name
    root = next((folder for folder in (project, *project.parents) if (folder / ".git").exists()), project)
    real = Path(os.path.realpath(path))
    if not path.is_file():
        raise DescriptorError(f"{name} does not exist in the project")
    if Path(name).is_absolute() or not real.is_relative_to(os.path.realpath(root)):
        raise DescriptorError(f"{name} is outside of the project", fix="Name a file of the project, relative to its folder.")
    return path


def requirement_lines(text: str, folder: str = "") -> tuple[str, ...]:
    """Requirements without comments and continuation lines; paths relative to the project, of which `folder` is a part."""
    lines = []
    for line in re.sub(r"\\\r?\n\s*", "", text).splitlines():
        line = re.sub(r"(^|\s)#.*$", "", line).strip()
        if line:
            lines.append(_relative(line, folder))
    return tuple(lines)


def _relative(line: str, folder: str) -> str:
    """A requirement line as seen from the project's folder."""
    if not folder or folder == ".":
        return line
    option = re.match(r"(-r|-c|-e|--requirement|--constraint|--editable|-f|--find-links)(\s*=\s*|\s+|(?=[./]))(.+)", line)
    path = option.group(3) if option else line
    local = option is not None or path.startswith(("./", "../")) or path in (".", "..")
    if not local or "://" in path or path.startswith(("/", "git+")):
        return line
    name, bracket, extras = path.partition("[")
    joined = os.path.normpath(f"{folder}/{name}")
    if not option:
        return f"./{joined}{bracket}{extras}" if not joined.startswith("..") else f"{joined}{bracket}{extras}"
    return f"{option.group(1)} {joined}{bracket}{extras}"


def from_requirements(project: Path, name: str) -> EnvSpec:
    folder = str(PurePosixPath(name).parent)
    return EnvSpec(origin=name, requirements=requirement_lines(read_text(project, name), folder))


def from_lock(project: Path, name: str) -> EnvSpec:
    """The lock itself is read by whoever installs from it (it may be large); only the interpreter, at its top, is read here."""
    with inside(project, name).open("rb") as file:
        head = file.read(_HEAD).decode(errors="replace")
    python = re.search(r"""^requires-python\s*=\s*["']([^"']+)["']""", head, re.MULTILINE)
    return EnvSpec(origin=name, lock_file=name, python=python.group(1).strip() if python else None)


def from_pyproject(project: Path, name: str) -> EnvSpec | None:
    """None where the file only configures tools.  A project that can be built is installed; its dependencies come with it."""
    content = _toml(project, name)
    table, poetry, uv = (_table(content, *keys) for keys in (("project",), ("tool", "poetry"), ("tool", "uv")))
    builds = "build-system" in content and uv.get("package") is not False and poetry.get("package-mode") is not False
    if not table and not (poetry and builds):
        return None
    python = table.get("requires-python") or _table(poetry, "dependencies").get("python")
    dependencies = table.get("dependencies")
    folder = str(PurePosixPath(name).parent)
    lines: tuple[str, ...] = ("." if folder == "." else f"./{folder}",) if builds else ()
    if not builds and isinstance(dependencies, list):
        lines = tuple(str(item) for item in dependencies)
    return EnvSpec(origin=name, python=_caret(python) if isinstance(python, str) else None, requirements=lines)


def _caret(text: str) -> str:
    """Poetry's `^3.8` as a specifier."""
    match = re.fullmatch(r"\^\s*(\d+)(\.\d+)*", text.strip())
    return f">={text.strip()[1:].strip()},<{int(match.group(1)) + 1}" if match else python_version(text)


def python_version(text: str) -> str:
    """A Python version as it is meant: `3.8.*`, `=3.8`, `==3.8.2`, `3.8.2=h357f687_4` are 3.8, 3.8, 3.8.2 and 3.8.2."""
    text = text.strip()
    match = re.fullmatch(r"={0,3}\s*(\d+(?:\.\d+)*)(?:\.\*|\*)?(?:\s*=\s*\S+)?", text)
    return match.group(1) if match else text


def _from_yaml(project: Path, name: str) -> EnvSpec:
    root = _yaml(project, name)
    conda = "conda" in PurePosixPath(name).name or (root is not None and bool(root.get("channels") or root.get("name")))
    pip = root is not None and any(
        item.shape is Shape.MAP for item in (root.get("dependencies") or Node(Shape.LIST, "seq", 0, 0)).items
    )
    return from_conda(project, name) if conda or pip or "environment" in name else from_python_env(project, name)


def from_python_env(project: Path, name: str) -> EnvSpec:
    """MLflow's `python_env.yaml`: `python`, `build_dependencies`, `dependencies`."""
    root = _yaml(project, name)
    spec = EnvSpec(origin=name)
    if root is None:
        return spec
    folder = str(PurePosixPath(name).parent)
    known = ("python", "build_dependencies", "dependencies")
    unknown = [key.text for key, _ in root.entries if key.text not in known]
    python = root.get("python")
    if python and python.shape is not Shape.SCALAR:
        raise DescriptorError(f"{name}:{python.line}:{python.column}: `python` has to be a version")
    return replace(
        spec,
        python=python_version(python.text) if python and not python.is_null else None,
        requirements=_lines(root.get("dependencies"), name, folder),
        build_requirements=_lines(root.get("build_dependencies"), name, folder),
        notes=tuple(f"The key {key!r} in {name} is not known and was left aside." for key in unknown),
    )


def from_conda(project: Path, name: str) -> EnvSpec:
    """A conda environment file: what pip installs becomes requirements, the rest stays in conda's words."""
    root = _yaml(project, name)
    folder = str(PurePosixPath(name).parent)
    packages: list[str] = []
    requirements: tuple[str, ...] = ()
    if root is None:
        return EnvSpec(EnvManager.CONDA, name)
    dependencies = root.get("dependencies")
    for item in _items(dependencies, name):
        if item.shape is Shape.SCALAR:
            packages.append(item.text.strip())
        elif item.shape is Shape.MAP and (pip := item.get("pip")):
            requirements += _lines(pip, name, folder)
        elif item.shape is not Shape.MAP or not item.get("pip"):
            raise DescriptorError(f"{name}:{item.line}:{item.column}: a package, or the list `pip:`, is wanted here")
    channels = tuple(item.text for item in _items(root.get("channels"), name))
    spec = conda_spec(name, packages, channels, requirements)
    note = f"{name} names a folder of one machine (`prefix:`), which was left aside." if root.get("prefix") else ""
    return replace(spec, variables=_variables(root.get("variables"), name), notes=(note,) if note else ())


def _variables(node: Node | None, name: str) -> tuple[tuple[str, str], ...]:
    """`variables:` of a conda environment file."""
    if node is None or node.is_null:
        return ()
    if node.shape is not Shape.MAP:
        raise DescriptorError(f"{name}:{node.line}:{node.column}: a mapping of names to values is wanted here")
    found = []
    for key, value in node.entries:
        if value.shape is not Shape.SCALAR or not re.fullmatch(r"[A-Za-z_]\w*", key.text) or "\0" in value.text:
            raise DescriptorError(f"{name}:{key.line}:{key.column}: a name and one value are wanted here")
        found.append((key.text, "" if value.is_null else value.text))
    return tuple(found)


def conda_spec(origin: str, packages: list[str], channels: tuple[str, ...], requirements: tuple[str, ...] = ()) -> EnvSpec:
    """The spec of packages in conda's words; `python` is taken out of them."""
    python, written, rest = None, "", []
    for package in packages:
        match = re.fullmatch(r"(?:[\w./-]+::)?python(?=$|[\s=<>!~\[])\s*(.*)", package)
        if match:
            python, written = python_version(match.group(1)) or None, package
        else:
            rest.append(package)
    if python and python.startswith("["):
        python = None  # the words in brackets are the solver's to read
    return EnvSpec(EnvManager.CONDA, origin, python, requirements, conda=tuple(rest), channels=channels, conda_python=written)


def _from_header(project: Path, script: str) -> EnvSpec | None:
    """The `# /// script` header of a Python file, or None where it has none."""
    if not script.endswith(".py") or not (project / script).is_file():
        return None
    try:
        text = read_bounded(inside(project, script), script).decode("utf-8-sig")
    except (YamlError, UnicodeDecodeError):
        return None  # a script may be larger than any header, and is not for us to judge
    blocks = list(_HEADER.finditer(text.replace("\r\n", "\n")))
    if not blocks:
        return None
    origin = f"header of {script}"
    if len(blocks) > 1:
        raise DescriptorError(f"{script} has more than one `# /// script` header")
    content = "".join(line[2:] if line.startswith("# ") else line[1:] for line in blocks[0]["content"].splitlines(keepends=True))
    table = _parse_toml(content, origin)
    python, dependencies = table.get("requires-python"), table.get("dependencies")
    return EnvSpec(
        origin=origin,
        python=python if isinstance(python, str) else None,
        requirements=tuple(str(item) for item in dependencies) if isinstance(dependencies, list) else (),
    )


def _yaml(project: Path, name: str) -> Node | None:
    try:
        root = load_file(inside(project, name), name)
    except YamlError as error:
        raise DescriptorError(str(error.problem)) from error
    if root is not None and root.shape is not Shape.MAP:
        raise DescriptorError(f"{name}:{root.line}:{root.column}: a mapping is wanted here")
    return root


def _items(node: Node | None, name: str) -> list[Node]:
    if node is None or node.is_null:
        return []
    if node.shape is not Shape.LIST:
        raise DescriptorError(f"{name}:{node.line}:{node.column}: a list is wanted here")
    return node.items


def _lines(node: Node | None, name: str, folder: str) -> tuple[str, ...]:
    lines: tuple[str, ...] = ()
    for item in _items(node, name):
        if item.shape is not Shape.SCALAR or item.is_null:
            raise DescriptorError(f"{name}:{item.line}:{item.column}: a requirement is wanted here")
        lines += requirement_lines(item.text, folder)
    return lines


def _toml(project: Path, name: str) -> Mapping[str, object]:
    return _parse_toml(read_text(project, name), name)


def _parse_toml(text: str, name: str) -> Mapping[str, object]:
    import tomllib

    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DescriptorError(f"{name} is not valid TOML", why=str(error)) from error


def _table(content: Mapping[str, object], *keys: str) -> Mapping[str, object]:
    for key in keys:
        inner = content.get(key)
        content = inner if isinstance(inner, dict) else {}
    return content


_KNOWN: Mapping[str, Callable[[Path, str], EnvSpec | None]] = {
    "pylock.toml": from_lock,
    "uv.lock": from_lock,
    "python_env.yaml": from_python_env,
    "conda.yaml": from_conda,
    "conda.yml": from_conda,
    "environment.yml": from_conda,
    "environment.yaml": from_conda,
    "requirements.txt": from_requirements,
    "pyproject.toml": from_pyproject,
}

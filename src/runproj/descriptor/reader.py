"""The project of a folder: `runproj.yaml`, an MLproject, or neither."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from runproj.core.environment import DockerSpec, EnvManager, EnvSpec, ImageBuild
from runproj.core.project import EntryPoint, Project, SweepWishes
from runproj.core.template import suggestion
from runproj.core.values import dataclass
from runproj.descriptor import entry_points, environment_files, scripts
from runproj.descriptor.grammar import MLPROJECT, RUNPROJ, VERSION
from runproj.descriptor.problems import DescriptorProblems, Problem, Problems, Severity
from runproj.descriptor.shapes import Table, read
from runproj.descriptor.yaml_nodes import Node, Shape, YamlError, load_file
from runproj.errors import DescriptorError, RunprojError

OURS = ("runproj.yaml", "runproj.yml")
THEIRS = "mlproject"


def read_project(project: Path, *, entry_point: str | None = None) -> Project:
    """The project in a folder, with `entry_point` made up where it names a script that nothing declares.

    Raises `DescriptorError` for a descriptor with errors (all are listed), and where the entry point is neither declared nor
    a script.  Errors in entry points of an MLproject that are not asked for are left aside, as MLflow does.
    """
    parsed = _parse(project)
    errors = [p for p in parsed.problems if p.severity is Severity.ERROR and p.entry_point in ("", entry_point)]
    if errors:
        raise DescriptorProblems(errors)
    warnings = [p for p in parsed.problems if p not in errors and p.entry_point in ("", entry_point)]
    found = {item.name: item for item in parsed.entry_points}
    if entry_point is not None and entry_point not in found:
        if not scripts.is_script(entry_point):
            raise _no_entry_point(project, parsed, entry_point)
        found[entry_point] = scripts.script_entry_point(project, entry_point)
    chosen = found.get(entry_point or "main")
    spec = parsed.environment
    if spec is None:
        spec = environment_files.find_environment(project, scripts.script_of(chosen.command) if chosen else None)
    if chosen and chosen.name.endswith(".ipynb"):
        spec = scripts.with_notebook_tools(spec)
    notes = (*parsed.notes, *(str(warning) for warning in warnings), *spec.notes)
    name = parsed.name or project.resolve().name
    return Project(name, tuple(found.values()), spec, parsed.file, notes, parsed.sweeps)


def problems_of(path: Path) -> tuple[Problem, ...]:
    """Every problem of a project folder, or of a descriptor file, with its place.  None at all where there is no descriptor."""
    folder, file = (path, None) if path.is_dir() else (path.parent, path.name)
    parsed = _parse(folder, file, thorough=True)
    if any(problem.severity is Severity.ERROR for problem in parsed.problems):
        return parsed.problems
    try:
        if parsed.environment is None:
            environment_files.find_environment(folder)
    except RunprojError as error:
        return (*parsed.problems, Problem(parsed.file or str(path), 0, 0, error.what, error.why or error.fix))
    return parsed.problems


@dataclass(frozen=True)
class _Parsed:
    """What a descriptor says, and all that is wrong with it.  `environment`: None where it says nothing of it."""

    file: str | None = None
    name: str = ""
    entry_points: tuple[EntryPoint, ...] = ()
    environment: EnvSpec | None = None
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    sweeps: tuple[tuple[str, SweepWishes], ...] = ()


def _parse(project: Path, file: str | None = None, *, thorough: bool = False) -> _Parsed:
    try:
        names = sorted(os.listdir(project))
    except OSError as error:
        raise DescriptorError(f"The folder {project} cannot be read", why=error.strerror or "") from error
    ours = [name for name in names if name.lower() in OURS]
    theirs = [name for name in names if name.lower() == THEIRS]
    found = [file] if file else [*ours, *theirs]
    if not found:
        return _Parsed()
    chosen = found[0]
    if not (project / chosen).is_file():
        return _Parsed(chosen, problems=(Problem(chosen, 0, 0, "is not a file"),))
    notes = (f"{chosen} is used; {', '.join(found[1:])} is left aside.",) if found[1:] else ()
    is_ours = chosen.lower() != THEIRS
    problems = Problems(chosen, lenient=not is_ours, thorough=thorough)
    try:
        root = load_file(environment_files.inside(project, chosen), chosen)
    except YamlError as error:
        return _Parsed(chosen, problems=(error.problem,), notes=notes)
    except DescriptorError as error:
        return _Parsed(chosen, problems=(Problem(chosen, 0, 0, error.what),), notes=notes)
    if root is None:
        return _Parsed(chosen, notes=notes)
    table = read(RUNPROJ, root, problems) if is_ours else _read_leniently(root, problems)
    if not isinstance(table, Table):
        return _Parsed(chosen, problems=tuple(problems.found), notes=notes)
    points = _ours(table, problems) if is_ours else _theirs(table, problems)
    environment = _environment(project, table, problems)
    sweeps = entry_points.sweeps(table.table("entry_points")) if is_ours else ()
    return _Parsed(chosen, table.text("name") or "", points, environment, _in_order(problems.found), notes, sweeps)


def _in_order(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(dict.fromkeys(problems), key=lambda problem: (problem.line, problem.column)))


def _read_leniently(root: Node, problems: Problems) -> object:
    """The table of an MLproject; each entry point's problems are marked as its own."""
    points = root.get("entry_points") if root.shape is Shape.MAP else None
    result = read(MLPROJECT, root, problems)
    for key, value in points.entries if points is not None and points.shape is Shape.MAP else ():
        mine = {id(p): p for p in problems.found if _within(p, value)}
        problems.found = [replace(p, entry_point=key.text) if id(p) in mine else p for p in problems.found]
    return result


def _within(problem: Problem, node: Node) -> bool:
    """Whether a problem stands at a node or below it."""
    todo = [node]
    while todo:
        item = todo.pop()
        if (item.line, item.column) == (problem.line, problem.column):
            return True
        todo += item.items
        todo += [part for pair in item.entries for part in pair]
    return False


def _ours(table: Table, problems: Problems) -> tuple[EntryPoint, ...]:
    version = table.number("runproj")
    if version is not None and version > VERSION:
        problems.error(table.at("runproj"), f"the file has version {version:g}; this runproj knows {VERSION}", "upgrade runproj")
    shared = entry_points.parameters(table.table("params"), problems)
    env = entry_points.variables(table.table("env"))
    points = table.table("entry_points")
    found = tuple(
        entry_points.entry_point(name, value, shared, env, problems)
        for name, value in (points.values.items() if points else ())
        if isinstance(value, Table)
    )
    if points and any(point.needs for point in found):
        from runproj.descriptor import steps

        steps.check(found, points, problems)
    return found


def _theirs(table: Table, problems: Problems) -> tuple[EntryPoint, ...]:
    points = table.table("entry_points")
    result = []
    for name, value in points.values.items() if points else ():
        problems.entry_point = name
        result.append(entry_points.ml_entry_point(name, value if isinstance(value, Table) else None, problems))
    problems.entry_point = ""
    return tuple(result)


def _no_entry_point(project: Path, parsed: _Parsed, name: str) -> DescriptorError:
    names = [item.name for item in parsed.entry_points]
    known = names + scripts.scripts(project)
    if parsed.file is None:
        what = f"The project has no descriptor, and so no entry point {name!r}"
    else:
        what = f"The project has no entry point {name!r}"
    listed = f"Entry points in {parsed.file}: {', '.join(names) or 'none'}." if parsed.file else ""
    runnable = f"Scripts: {', '.join(scripts.scripts(project)) or 'none'}."
    return DescriptorError(
        what,
        why="  ".join(part for part in (listed, runnable, suggestion(name, known)) if part),
        fix=f"Name one with -e, like -e {known[0]}."
        if known
        else "Name a script with -e, or describe the project: runproj init.",
    )


# -- the environment that a descriptor names


def _environment(project: Path, table: Table, problems: Problems) -> EnvSpec | None:
    """What the descriptor says of the environment; None where it says nothing."""
    keys = [key for key in ("environment", "python_env", "conda_env", "docker_env") if key in table]
    if len(keys) > 1:
        problems.error(table.at(keys[1]), f"only one of these can be there: {', '.join(keys)}")
        return None
    if not keys:
        return None
    key = keys[0]
    place, inner = table.at(key), table.table(key)
    try:
        match key:
            case "python_env":
                return environment_files.from_python_env(project, table.text(key) or "")
            case "conda_env":
                return environment_files.from_conda(project, table.text(key) or "")
            case "docker_env":
                return EnvSpec(EnvManager.DOCKER, f"{problems.file} (docker_env)", docker=_docker(inner, table.text(key)))
            case _ if inner is None:
                return environment_files.from_file(project, table.text(key) or "")
            case _:
                return _inline(project, inner, problems)
    except DescriptorError as error:
        problems.error(place, error.what, error.why or error.fix)
        return None


def _docker(table: Table | None, image: str | None) -> DockerSpec:
    if table is None:
        return DockerSpec(image or "")
    pairs: list[tuple[str, str | None]] = []
    for item in table.items("environment"):
        if isinstance(item, str):
            pairs.append((item, None))
        elif isinstance(item, list):
            pairs.append((str(item[0]), str(item[1])))
    if variables := table.table("environment"):
        pairs += [(name, str(value)) for name, value in variables.values.items()]
    return DockerSpec(
        table.text("image") or "",
        table.texts("volumes"),
        tuple(pairs),
        _image_build(table),
        gpus=table.text("gpus") or "",
        shm_size=table.text("shm_size") or "",
        network=table.text("network") or "",
        user=table.text("user") or "",
    )


def _image_build(table: Table) -> ImageBuild | None:
    file = table.text("dockerfile")
    if file is None:
        return None
    arguments = table.table("build_args")
    pairs = tuple((name, str(value)) for name, value in arguments.values.items()) if arguments else ()
    return ImageBuild(file, table.text("context") or str(PurePosixPath(file).parent), pairs, table.text("target") or "")


_ALONE: Mapping[str, tuple[str, ...]] = {
    "docker": ("python", "dependencies", "requirements", "build_dependencies", "lock", "conda"),
    "lock": ("dependencies", "requirements", "build_dependencies", "conda"),
}


def _inline(project: Path, table: Table, problems: Problems) -> EnvSpec:
    """The keys under `environment:`."""
    for key, others in _ALONE.items():
        for other in others:
            if key in table and other in table:
                problems.error(table.at(other), f"{other!r} and {key!r} exclude each other")
    origin = f"{problems.file} (environment)"
    spec = EnvSpec(origin=origin)
    if "docker" in table:
        spec = EnvSpec(EnvManager.DOCKER, origin, docker=_docker(table.table("docker"), table.text("docker")))
    elif lock := table.text("lock"):
        spec = environment_files.from_lock(project, lock)
    elif conda := table.table("conda"):
        spec = environment_files.conda_spec(origin, list(conda.texts("dependencies")), conda.texts("channels"))
    elif file := table.text("conda"):
        spec = environment_files.from_conda(project, file)
    elif packages := table.texts("conda"):
        spec = environment_files.conda_spec(origin, list(packages), ())
    lines = [*table.texts("dependencies"), *(() if table.text("requirements") else table.texts("requirements"))]
    requirements = environment_files.requirement_lines("\n".join(lines))
    if file := table.text("requirements"):
        requirements += environment_files.from_requirements(project, file).requirements
    python = table.text("python")
    spec = replace(
        spec,
        python=environment_files.python_version(python) if python else spec.python,
        requirements=(*spec.requirements, *requirements),
        build_requirements=environment_files.requirement_lines("\n".join(table.texts("build_dependencies"))),
    )
    if manager := table.text("manager"):
        spec = replace(spec, manager=EnvManager(manager))
    return environment_files.with_interpreter(spec, project)

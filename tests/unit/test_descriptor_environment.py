"""The environment of a project from its files, in the documented order; scripts and notebooks that nobody declared."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from runproj.core.call import Given
from runproj.core.environment import EnvManager, EnvSpec
from runproj.core.parameters import bind
from runproj.core.project import Command, EntryPoint
from runproj.descriptor import problems_of, read_project
from runproj.descriptor.environment_files import find_environment, from_file, python_version, requirement_lines
from runproj.descriptor.scripts import script_of
from runproj.errors import DescriptorError

HEADER = """#!/usr/bin/env python
# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "rich",  # a comment
#   "x[y]>=1",
# ]
# ///
print()
"""


@pytest.fixture
def folder(isolated: Path) -> Path:
    path = isolated / "project"
    path.mkdir()
    return path


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def environment(folder: Path, files: dict[str, str], script: str | None = None) -> EnvSpec:
    write(folder, files)
    return find_environment(folder, script)


ORDER = [
    ("train.py", HEADER, "header of train.py"),
    ("pylock.toml", 'requires-python = ">=3.10"\n', "pylock.toml"),
    ("uv.lock", "version = 1\nrequires-python = '>=3.9'\n", "uv.lock"),
    ("python_env.yaml", "python: 3.8\n", "python_env.yaml"),
    ("conda.yaml", "dependencies: [python=3.8]\n", "conda.yaml"),
    ("environment.yml", "dependencies: [python=3.8]\n", "environment.yml"),
    ("requirements.txt", "numpy\n", "requirements.txt"),
    ("pyproject.toml", '[project]\nname = "x"\ndependencies = ["numpy"]\n', "pyproject.toml"),
]


def test_the_order(folder: Path) -> None:
    write(folder, {name: content for name, content, _ in ORDER})
    for name, _, origin in ORDER:
        assert find_environment(folder, "train.py").origin == origin
        (folder / name).unlink()
    assert find_environment(folder) == EnvSpec()
    assert find_environment(folder).manager is EnvManager.VIRTUALENV


def test_the_header_of_a_script(folder: Path) -> None:
    spec = environment(folder, {"train.py": HEADER, "requirements.txt": "x"}, "train.py")
    assert (spec.python, spec.requirements) == (">=3.11", ("rich", "x[y]>=1"))
    assert environment(folder, {"train.py": HEADER.replace("\n", "\r\n")}, "train.py").requirements == ("rich", "x[y]>=1")
    assert environment(folder, {"other.py": "print()\n"}, "other.py").origin == "requirements.txt"
    for text in (HEADER + HEADER, HEADER.replace("[", "{")):
        with pytest.raises(DescriptorError):
            environment(folder, {"train.py": text}, "train.py")


def test_the_header_counts_for_the_script_that_a_command_runs(folder: Path) -> None:
    write(
        folder, {"train.py": HEADER, "MLproject": "entry_points: {main: {command: 'python train.py --a {a}'}, b: {command: c}}"}
    )
    assert read_project(folder, entry_point="main").environment.origin == "header of train.py"
    assert read_project(folder, entry_point="train.py").environment.origin == "header of train.py"
    assert read_project(folder, entry_point="b").environment.origin == "nothing declared"


@pytest.mark.parametrize(
    ("command", "script"),
    [
        (Command("python train.py --x {x}"), "train.py"),
        (Command("cd a && /usr/bin/python3.9 'b c.py'\n"), "b c.py"),
        (Command(argv=("python", "t.py")), "t.py"),
        (Command("python -m pkg"), None),
        (Command("python {script}.py"), None),
        (Command("python 'open"), None),
        (Command("bash x.sh"), None),
        (Command(), None),
    ],
)
def test_the_script_of_a_command(command: Command, script: str | None) -> None:
    assert script_of(command) == script


def test_locks(folder: Path) -> None:
    spec = environment(folder, {"uv.lock": "version = 1\nrequires-python = '>=3.9'\n"})
    assert spec == EnvSpec(origin="uv.lock", python=">=3.9", lock_file="uv.lock")
    spec = environment(folder, {"pylock.toml": 'lock-version = "1.0"\n', ".python-version": "3.11\n"})
    assert spec == EnvSpec(origin="pylock.toml, .python-version", python="3.11", lock_file="pylock.toml")


def test_python_env(folder: Path) -> None:
    text = (
        "python: 3.10\nbuild_dependencies: [pip==23, setuptools]\ndependencies:\n- -r requirements.txt\n- numpy  # x\nextra: 1\n"
    )
    spec = environment(folder, {"python_env.yaml": text})
    assert spec == EnvSpec(
        origin="python_env.yaml",
        python="3.10",
        requirements=("-r requirements.txt", "numpy"),
        build_requirements=("pip==23", "setuptools"),
        notes=("The key 'extra' in python_env.yaml is not known and was left aside.",),
    )
    assert environment(folder, {"python_env.yaml": ""}) == EnvSpec(origin="python_env.yaml")


CONDA = """
name: env
channels: [conda-forge, defaults]
dependencies:
  - python=3.8.5=h7579374_1
  - conda-forge::numpy>=1.19
  - pytorch::pytorch=2.1.2
  - pip
  - pip:
    - mlflow<3
    - -r req/more.txt
    - -e .
variables: {THREADS: 2, EMPTY: }
prefix: /home/x
"""


def test_conda(folder: Path) -> None:
    assert environment(folder, {"environment.yml": CONDA}) == EnvSpec(
        EnvManager.CONDA,
        "environment.yml",
        "3.8.5",
        ("mlflow<3", "-r req/more.txt", "-e ."),
        conda=("conda-forge::numpy>=1.19", "pytorch::pytorch=2.1.2", "pip"),
        channels=("conda-forge", "defaults"),
        conda_python="python=3.8.5=h7579374_1",
        variables=(("THREADS", "2"), ("EMPTY", "")),
        notes=("environment.yml names a folder of one machine (`prefix:`), which was left aside.",),
    )
    assert environment(folder, {"conda.yaml": "name: x\n"}) == EnvSpec(EnvManager.CONDA, "conda.yaml")
    assert environment(folder, {"conda.yaml": "dependencies:\nchannels:\n"}) == EnvSpec(EnvManager.CONDA, "conda.yaml")


@pytest.mark.parametrize(
    ("written", "version"),
    [
        ("3.8", "3.8"), ("=3.8", "3.8"), ("==3.8.2", "3.8.2"), ("3.8.*", "3.8"), ("3.8*", "3.8"), (" 3.10 ", "3.10"), ("3", "3"),
        (">=3.7,<3.9", ">=3.7,<3.9"), ("3.8.5=h7579374_1", "3.8.5"), ("3.9|3.10", "3.9|3.10"),
    ],
)  # fmt: skip
def test_python_versions(written: str, version: str) -> None:
    assert python_version(written) == version


@pytest.mark.parametrize(
    ("package", "python"),
    [
        ("python", None),
        ("python=3.9", "3.9"),
        ("python 3.9", "3.9"),
        ("python>=3.7", ">=3.7"),
        ("conda-forge::python==3.9", "3.9"),
        ("python[version='>=3.8']", None),
    ],
)
def test_python_among_conda_packages(folder: Path, package: str, python: str | None) -> None:
    spec = environment(folder, {"conda.yaml": f'dependencies: ["{package}", python-dateutil]\n'})
    assert (spec.python, spec.conda, spec.conda_python) == (python, ("python-dateutil",), package)


def test_requirement_lines() -> None:
    text = (
        "# all\n"
        "numpy==1.0 \\\n  --hash=sha256:aa \\\n  --hash=sha256:bb\n\nx # y\n-r more.txt\n-c ../c.txt\n-e .\n-e ./p[a]\n./q\n"
        "../r\n.\n--index-url https://h/simple#x\ngit+https://h/p.git@1#egg=p\np @ file:///x\n-r https://h/r.txt\nfile#1\n"
    )
    plain = (
        "numpy==1.0 --hash=sha256:aa --hash=sha256:bb", "x", "-r more.txt", "-c ../c.txt", "-e .", "-e ./p[a]", "./q", "../r",
        ".", "--index-url https://h/simple#x",
        "git+https://h/p.git@1#egg=p", "p @ file:///x", "-r https://h/r.txt", "file#1",
    )  # fmt: skip
    assert requirement_lines(text) == plain
    moved = requirement_lines(text, "sub")
    assert moved[2:9] == ("-r sub/more.txt", "-c c.txt", "-e sub", "-e sub/p[a]", "./sub/q", "./r", "./sub")
    assert moved[:2] + moved[9:] == plain[:2] + plain[9:]


PYPROJECTS = [
    ('[project]\nname = "x"\nrequires-python = ">=3.9"\ndependencies = ["a", "b"]\n', ">=3.9", ("a", "b")),
    ('[project]\nname = "x"\ndependencies = ["a"]\n[build-system]\nrequires = ["hatchling"]\n', None, (".",)),
    ('[project]\nname = "x"\ndependencies = ["a"]\n[build-system]\nrequires = []\n[tool.uv]\npackage = false\n', None, ("a",)),
    (
        '[tool.poetry]\nname = "x"\n[tool.poetry.dependencies]\npython = "^3.8"\n[build-system]\nrequires = []\n',
        ">=3.8,<4",
        (".",),
    ),
]


@pytest.mark.parametrize(("text", "python", "requirements"), PYPROJECTS)
def test_pyproject(folder: Path, text: str, python: str | None, requirements: tuple[str, ...]) -> None:
    assert environment(folder, {"pyproject.toml": text}) == EnvSpec(
        origin="pyproject.toml", python=python, requirements=requirements
    )


def test_a_pyproject_that_only_configures_tools_declares_nothing(folder: Path) -> None:
    assert environment(folder, {"pyproject.toml": "[tool.ruff]\nline-length = 3\n"}) == EnvSpec()
    with pytest.raises(DescriptorError, match="declares no environment"):
        from_file(folder, "pyproject.toml")


@pytest.mark.parametrize(
    ("files", "python", "origin"),
    [
        ({".python-version": "3.11.4\n"}, "3.11.4", ".python-version"),
        ({".python-version": "# x\n\ncpython-3.12\n"}, "3.12", ".python-version"),
        ({"runtime.txt": "python-3.8.10\n"}, "3.8.10", "runtime.txt"),
        ({".python-version": "3.9\n", "requirements.txt": ""}, "3.9", "requirements.txt, .python-version"),
        ({".python-version": "3.9\n", "pylock.toml": 'requires-python = ">=3.8"'}, "3.9", "pylock.toml, .python-version"),
        ({".python-version": "3.9\n", "python_env.yaml": "python: 3.8"}, "3.8", "python_env.yaml"),
    ],
)
def test_files_that_name_the_interpreter(folder: Path, files: dict[str, str], python: str, origin: str) -> None:
    spec = environment(folder, files)
    assert (spec.python, spec.origin) == (python, origin)


def test_a_name_that_is_no_version_is_noted(folder: Path) -> None:
    spec = environment(folder, {".python-version": "myenv\n", "runtime.txt": "\n"})
    assert spec.python is None
    assert len(spec.notes) == 2
    assert "'myenv'" in spec.notes[0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("conda.yaml", "dependencies: numpy\n"),
        ("conda.yaml", "dependencies: [{numpy: 1}]\n"),
        ("conda.yaml", "variables: [A]\n"),
        ("conda.yaml", "variables: {A-B: 1}\n"),
        ("conda.yaml", "- a\n"),
        ("conda.yaml", "a: [\n"),
        ("python_env.yaml", "python: [3]\n"),
        ("python_env.yaml", "dependencies: [[a]]\n"),
        ("requirements.txt", b"\xff\xfe\xff"),
        ("pyproject.toml", "[project\n"),
    ],
)
def test_files_that_cannot_be_read_are_named(folder: Path, name: str, content: str | bytes) -> None:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DescriptorError) as caught:
        read_project(folder)
    assert name in str(caught.value)
    assert [problem.severity.value for problem in problems_of(folder)] == ["error"]


def test_files_outside_of_the_repository_are_refused(folder: Path) -> None:
    write(folder.parent, {"secret.txt": "x\n", "shared.yaml": "python: 3.9\n"})
    (folder / "requirements.txt").symlink_to("../secret.txt")
    with pytest.raises(DescriptorError, match="outside of the project"):
        find_environment(folder)
    (folder / "requirements.txt").unlink()
    write(folder, {"MLproject": "python_env: ../shared.yaml\n"})
    with pytest.raises(DescriptorError, match="outside of the project"):
        read_project(folder)
    (folder.parent / ".git").mkdir()  # now both are in one repository, the project in a folder of it
    assert read_project(folder).environment.python == "3.9"


# -- scripts


def argv(folder: Path, name: str, /, **values: str) -> tuple[str, ...]:
    found = read_project(folder, entry_point=name)
    point = next(item for item in found.entry_points if item.name == name)
    call, notes = bind(point, [Given(key, value) for key, value in values.items()])
    assert notes == ()
    return call.argv({})


def test_scripts_are_entry_points(folder: Path) -> None:
    write(folder, {"train.py": "", "sub/run.sh": "", "fit.R": "", "a {b}.py": "", "-x.py": ""})
    assert argv(folder, "train.py", lr="0.1", s="it's") == ("python", "train.py", "--lr", "0.1", "--s", "it's")
    assert argv(folder, "sub/run.sh") == ("bash", "sub/run.sh")
    assert argv(folder, "fit.R", a="1") == ("Rscript", "-e", "mlflow::mlflow_source('fit.R')", "--args", "--a", "1")
    assert argv(folder, "a {b}.py") == ("python", "a {b}.py")
    assert argv(folder, "-x.py") == ("python", "./-x.py")
    found = read_project(folder, entry_point="train.py")
    assert (found.name, found.descriptor, found.environment) == ("project", None, EnvSpec())


def test_a_declared_name_wins_over_a_script(folder: Path) -> None:
    write(folder, {"train.py": "", "MLproject": "entry_points: {train.py: {command: other}}"})
    assert argv(folder, "train.py") == ("other",)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("main", "The project has no descriptor, and so no entry point 'main'\nScripts: train.py."),
        ("trian.py", "The project has no file 'trian.py'\nDid you mean 'train.py'?"),
        ("../x.py", "is outside of the project"),
        ("/etc/x.py", "no file"),
        ("train.txt", "Did you mean 'train.py'?"),
        ("sub", "no entry point 'sub'"),
    ],
)
def test_entry_points_that_are_not_there(folder: Path, name: str, words: str) -> None:
    write(folder, {"train.py": "", "../x.py": ""})
    with pytest.raises(DescriptorError) as caught:
        read_project(folder, entry_point=name)
    assert words in str(caught.value)


def test_the_entry_points_there_are_are_listed(folder: Path) -> None:
    write(folder, {"MLproject": "entry_points: {train: {command: a}, test: {command: b}}"})
    with pytest.raises(DescriptorError) as caught:
        read_project(folder, entry_point="tarin")
    assert caught.value.why == "Entry points in MLproject: train, test.  Scripts: none.  Did you mean 'train'?"


def test_a_folder_without_anything_has_no_problems(folder: Path) -> None:
    assert problems_of(folder) == ()
    assert read_project(folder).entry_points == ()
    with pytest.raises(DescriptorError, match="cannot be read"):
        read_project(folder / "gone")
    (folder / "MLproject").mkdir()
    with pytest.raises(DescriptorError, match="is not a file"):
        read_project(folder)


# -- notebooks


def notebook(source: list[str], **metadata: object) -> str:
    cell = {"cell_type": "code", "execution_count": None, "outputs": []}
    cells = [
        {**cell, "id": "a", "metadata": {"tags": ["parameters"]}, "source": ["lr = 1\nname = ''\n"]},
        {**cell, "id": "b", "metadata": {}, "source": source},
    ]
    return json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def test_a_notebook_is_run_by_papermill_with_its_parameters_injected(folder: Path) -> None:
    text = notebook([], kernelspec={"name": "conda-env-x", "language": "python", "display_name": "x"})
    write(folder, {"sub/a[1].ipynb": text, "requirements.txt": "numpy\nipykernel>=6\n"})
    found = read_project(folder, entry_point="sub/a[1].ipynb")
    assert found.environment.requirements == ("numpy", "ipykernel>=6", "papermill")
    assert found.notes == ("Added to the environment, for the notebook: papermill.",)
    point = found.entry_points[0]
    assert isinstance(point, EntryPoint)
    assert point.outputs == ("sub/a[[]1].output.ipynb",)
    assert argv(folder, "sub/a[1].ipynb", lr="0.5") == (
        "python", "-m", "papermill", "sub/a[1].ipynb", "sub/a[1].output.ipynb", "--no-progress-bar",
        "--stdout-file", "-", "--stderr-file", "/dev/stderr", "-k", "python3", "-l", "python", "-p", "lr", "0.5",
    )  # fmt: skip
    write(folder, {"r.ipynb": notebook([], kernelspec={"name": "ir", "language": "R", "display_name": "R"})})
    assert "-k" not in argv(folder, "r.ipynb")


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000])
def test_a_file_that_is_no_notebook(folder: Path, content: str) -> None:
    write(folder, {"a.ipynb": content})
    with pytest.raises(DescriptorError, match=r"a\.ipynb is not a notebook"):
        read_project(folder, entry_point="a.ipynb")


@pytest.mark.slow
@pytest.mark.network
def test_a_notebook_really_runs(folder: Path, tmp_path: Path) -> None:
    import uv

    write(folder, {"a.ipynb": notebook(["print('lr', lr * 2, repr(name))"])})
    requirements = read_project(folder, entry_point="a.ipynb").environment.requirements
    env = {**os.environ, "PATH": f"{tmp_path / 'env/bin'}:{os.environ['PATH']}", "VIRTUAL_ENV": str(tmp_path / "env")}
    for command in (["venv", "-q", str(tmp_path / "env")], ["pip", "install", "-q", *requirements]):
        subprocess.run([uv.find_uv_bin(), *command], env=env, check=True)
    call = argv(folder, "a.ipynb", lr="0.5", name="-it's $(x)")
    program = [str(tmp_path / "env/bin/python"), *call[1:]]
    done = subprocess.run(program, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'lr 1.0 "-it\'s $(x)"' in done.stdout
    assert (folder / "a.output.ipynb").exists()

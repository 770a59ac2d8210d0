"""MLproject files as they are found: read as MLflow reads them, and where MLflow falls over, read sensibly."""

from __future__ import annotations

from pathlib import Path

import pytest

from runproj.core.call import Given
from runproj.core.environment import DockerSpec, EnvManager
from runproj.core.parameters import bind
from runproj.core.project import Command, EntryPoint, Parameter, ParameterType, Project
from runproj.descriptor import Severity, problems_of, read_project
from runproj.errors import DescriptorError, ParameterError

T = ParameterType


@pytest.fixture
def folder(isolated: Path) -> Path:
    path = isolated / "project"
    path.mkdir()
    return path


def project(folder: Path, text: str, entry_point: str | None = "main", name: str = "MLproject") -> Project:
    (folder / name).write_text(text)
    return read_project(folder, entry_point=entry_point)


def argv(folder: Path, text: str, **values: str) -> tuple[str, ...]:
    point = project(folder, text).entry_points[0]
    return bind(point, [Given(name, value) for name, value in values.items()])[0].argv({})


def messages(folder: Path, text: str, severity: Severity) -> list[str]:
    (folder / "MLproject").write_text(text)
    return [str(problem) for problem in problems_of(folder) if problem.severity is severity]


WINE = """
name: tutorial

python_env: python_env.yaml

entry_points:
  main:
    parameters:
      alpha: {type: float, default: 0.5}
      l1_ratio: {type: float, default: 0.1}
      data: path
      url: {type: uri, description: where}
      n: {type: int}
    command: "python train.py {alpha} {l1_ratio} {data} {url} {n}"
  validate:
    command: |
      python validate.py
"""


def test_a_whole_file(folder: Path) -> None:
    (folder / "python_env.yaml").write_text("python: 3.10\nbuild_dependencies: [pip]\ndependencies: [-r requirements.txt]\n")
    found = project(folder, WINE)
    assert found.name == "tutorial"
    assert found.descriptor == "MLproject"
    assert found.notes == ()
    assert found.entry_points[0] == EntryPoint(
        "main",
        Command("python train.py {alpha} {l1_ratio} {data} {url} {n}"),
        (
            Parameter("alpha", T.FLOAT, "0.5", required=False),
            Parameter("l1_ratio", T.FLOAT, "0.1", required=False),
            Parameter("data", T.PATH),
            Parameter("url", T.URI, help="where"),
            Parameter("n", T.INT),
        ),
    )
    assert found.environment.python == "3.10"
    assert found.environment.requirements == ("-r requirements.txt",)
    assert found.environment.build_requirements == ("pip",)


@pytest.mark.parametrize("name", ["MLproject", "mlproject", "MLProject", "MLPROJECT"])
def test_any_case_of_the_name(folder: Path, name: str) -> None:
    assert project(folder, "name: x\n", None, name).descriptor == name


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "name:\n", "entry_points:\n", "name: x\n"])
def test_files_that_declare_next_to_nothing(folder: Path, text: str) -> None:
    (folder / "train.py").touch()
    assert project(folder, text, None).entry_points == ()
    assert [point.name for point in project(folder, text, "train.py").entry_points] == ["train.py"]
    with pytest.raises(DescriptorError, match="no entry point 'main'"):
        project(folder, text)


@pytest.mark.parametrize("parameters", ["", "    parameters:\n", "    parameters: {}\n", "    parameters: null\n"])
def test_parameters_left_empty(folder: Path, parameters: str) -> None:
    assert argv(folder, f"entry_points:\n  main:\n{parameters}    command: python t.py\n", x="1") == (
        "python",
        "t.py",
        "--x",
        "1",
    )


@pytest.mark.parametrize(
    "point", ["  main:\n", "  main: {}\n", "  main: {command: }\n", "  main: {parameters: {a: {default: 1}}}\n"]
)
def test_a_missing_command_is_an_error_only_when_it_is_run(folder: Path, point: str) -> None:
    found = project(folder, f"entry_points:\n{point}  other:\n    command: a\n")
    assert [item.name for item in found.entry_points] == ["main", "other"]
    with pytest.raises(DescriptorError, match="'main' has no command"):
        bind(found.entry_points[0], [])
    assert bind(found.entry_points[1], [])


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("0.5", "0.5"), ("1e-3", "1e-3"), ("1.0e-3", "0.001"), ("0.00001", "1e-05"), ("10", "10"), ("010", "8"),
        ("1_000", "1000"),
        ("true", "True"), ("True", "True"), ("no", "False"), ("'yes'", "yes"),
        ("None", "None"), ("''", ""), ('"a b"', "a b"),
        ("2020-01-01", "2020-01-01"), ("[64, 64]", "[64, 64]"), ("{a: b}", "{'a': 'b'}"), ("['x']", "['x']"),
        ("2020-99-99", "2020-99-99"),
    ],
)  # fmt: skip
def test_defaults_travel_as_mlflow_passes_them(folder: Path, written: str, text: str) -> None:
    assert argv(folder, f"entry_points: {{main: {{parameters: {{p: {{default: {written}}}}}, command: 't {{p}}'}}}}") == (
        "t",
        text,
    )


@pytest.mark.parametrize("default", ["", "null", "~"])
def test_a_null_default_is_none(folder: Path, default: str) -> None:
    with pytest.raises(ParameterError, match="missing parameter: 'p'"):
        argv(folder, f"entry_points:\n  main:\n    parameters:\n      p:\n        default: {default}\n    command: t\n")


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("int", T.INT), ("integer", T.INT), ("float", T.FLOAT), ("double", T.FLOAT), ("number", T.FLOAT), ("str", T.STRING),
        ("string", T.STRING), ("bool", T.BOOL), ("boolean", T.BOOL), ("path", T.PATH), ("uri", T.URI), ("Float", T.FLOAT),
        ("list[int]", T.STRING), ("'list[float]'", T.STRING), ("list", T.STRING), ("dict", T.STRING),
    ],
)  # fmt: skip
def test_types_of_real_projects(folder: Path, word: str, kind: ParameterType) -> None:
    found = project(folder, f"entry_points:\n  main:\n    parameters:\n      p: {word}\n    command: t\n")
    assert found.entry_points[0].parameters[0].type is kind
    assert found.notes == ()


def test_an_unknown_type_is_a_string_with_a_note(folder: Path) -> None:
    found = project(folder, "entry_points:\n  main:\n    parameters:\n      p: {type: flaot}\n    command: t {p}\n")
    assert found.entry_points[0].parameters[0] == Parameter("p", declared_type="flaot")
    assert found.notes == (
        "MLproject:4:17: the type 'flaot' of parameter 'p' is not known; it is taken as a string (Did you mean 'float'?)",
    )


def test_a_float_given_as_text_is_an_error_before_anything_is_built(folder: Path) -> None:
    text = "entry_points: {main: {parameters: {lr: {type: float, default: 0.1}}, command: 't {lr}'}}"
    with pytest.raises(ParameterError, match="'abc' is not a float"):
        argv(folder, text, lr="abc")
    assert argv(folder, text, lr="1e-3") == ("t", "1e-3")


@pytest.mark.parametrize("default", ["''", "None", "auto", "1.5"])
def test_a_default_that_is_not_of_its_type_passes(folder: Path, default: str) -> None:
    text = f"entry_points: {{main: {{parameters: {{p: {{type: int, default: {default}}}}}, command: 't {{p}}'}}}}"
    assert argv(folder, text) == ("t", default.strip("'"))


def test_extra_parameters_stay_on_the_line_of_the_command(folder: Path) -> None:
    text = "entry_points:\n  main:\n    parameters: {a: int}\n    command: |\n      python t.py \\\n        --a {a}\n\n"
    assert argv(folder, text, a="1", b="it's") == ("python", "t.py", "--a", "1", "--b", "it's")
    folded = "entry_points:\n  main:\n    command: >\n      cd sub &&\n      python t.py\n"
    assert argv(folder, folded, b="it's")[2:] == (
        '_rp_1=${1} _rp_2=${2}; set --; cd sub && python t.py "${_rp_1}" "${_rp_2}"\n', "bash", "--b", "it's",
    )  # fmt: skip


def test_several_lines_and_literal_braces(folder: Path) -> None:
    text = "entry_points:\n  main:\n    command: |\n      for f in {a,b}; do echo ${f} {}; done\n      awk '{print $1}' x\n"
    assert argv(folder, text)[2] == "for f in {a,b}; do echo ${f} {}; done\nawk '{print $1}' x\n"


def test_an_undeclared_placeholder_is_an_error_unless_its_value_is_given(folder: Path) -> None:
    text = "entry_points: {main: {parameters: {alpha: float}, command: 'python t.py {alpha} {beta}'}}"
    with pytest.raises(DescriptorError, match="no parameter 'beta'"):
        argv(folder, text, alpha="1")
    assert argv(folder, text, alpha="1", beta="2") == ("python", "t.py", "1", "2")
    assert "no parameter 'beta'" in messages(folder, text, Severity.ERROR)[0]


def test_unknown_keys_are_ignored_with_a_warning(folder: Path) -> None:
    text = (
        "name: x\nentry_point: {}\nenv: {A: b}\nentry_points:\n  main:\n    command: t\n    comand: x\n"
        "    parameters:\n      p: {type: float, default: 1, min: 0}\n"
    )
    assert messages(folder, text, Severity.WARNING) == [
        "MLproject:2:1: unknown key 'entry_point' is ignored (Did you mean 'entry_points'?)",
        "MLproject:3:1: unknown key 'env' is ignored (only runproj.yaml knows this key)",
        "MLproject:7:5: unknown key 'comand' is ignored (Did you mean 'command'?)",
        "MLproject:9:36: unknown key 'min' is ignored (only runproj.yaml knows this key)",
    ]
    assert messages(folder, text, Severity.ERROR) == []
    assert len(project(folder, text).notes) == 4


def test_errors_of_other_entry_points_do_not_matter(folder: Path) -> None:
    text = "entry_points:\n  main:\n    command: t\n  broken:\n    command: [a]\n    parameters: [b]\n"
    assert project(folder, text).entry_points[0].name == "main"
    assert len(messages(folder, text, Severity.ERROR)) == 2
    with pytest.raises(DescriptorError, match="2 errors"):
        project(folder, text, "broken")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a\n", "1:1: a mapping is wanted here"),
        ("just text\n", "1:1: a mapping is wanted here"),
        ("entry_points: [main]\n", "1:15: a mapping is wanted here, not a list"),
        ("python_env: a.yaml\nconda_env: b.yaml\n", "only one of these can be there: python_env, conda_env"),
        ("conda_env: gone.yaml\n", "1:12: gone.yaml does not exist in the project"),
        ("python_env: ../../../etc/passwd\n", "1:13: ../../../etc/passwd"),
        ("docker_env: {volumes: [a]}\n", "the key 'image' is missing"),
        ("name: [\n", "not valid YAML"),
        ("name: a\nname: b\n", "the key 'name' is there twice"),
    ],
)
def test_errors_have_places(folder: Path, text: str, words: str) -> None:
    with pytest.raises(DescriptorError) as caught:
        project(folder, text, None)
    assert words in str(caught.value)
    assert any(words in message for message in messages(folder, text, Severity.ERROR))


def test_docker(folder: Path) -> None:
    text = "docker_env:\n  image: a/b:1\n  volumes: ['$(pwd):/x']\n  environment: [[A, 'b c'], HOST]\n"
    spec = project(folder, text, None).environment
    assert spec.manager is EnvManager.DOCKER
    assert spec.docker == DockerSpec("a/b:1", ("$(pwd):/x",), (("A", "b c"), ("HOST", None)))
    assert project(folder, "docker_env: a/b\n", None).environment.docker == DockerSpec("a/b")


def test_a_conda_environment(folder: Path) -> None:
    (folder / "c.yaml").write_text("channels: [conda-forge]\ndependencies: [python=3.8, numpy, {pip: [mlflow]}]\n")
    spec = project(folder, "conda_env: c.yaml\n", None).environment
    assert (spec.manager, spec.origin, spec.python) == (EnvManager.CONDA, "c.yaml", "3.8")
    assert (spec.conda, spec.requirements, spec.channels) == (("numpy",), ("mlflow",), ("conda-forge",))


def test_runproj_yaml_wins_and_says_so(folder: Path) -> None:
    (folder / "MLproject").write_text("name: theirs\n")
    found = project(folder, "name: ours\n", None, "runproj.yaml")
    assert (found.name, found.notes) == ("ours", ("runproj.yaml is used; MLproject is left aside.",))


def test_every_mlproject_is_a_runproj_yaml(folder: Path) -> None:
    (folder / "python_env.yaml").write_text("python: 3.10\n")
    theirs = project(folder, WINE)
    (folder / "MLproject").unlink()
    ours = project(folder, WINE, "main", "runproj.yaml")
    assert [point.command for point in ours.entry_points] == [point.command for point in theirs.entry_points]
    assert [point.parameters for point in ours.entry_points] == [point.parameters for point in theirs.entry_points]
    assert ours.environment == theirs.environment

"""`runproj.yaml`: every key, every error with its place, and a published schema that says the same as the reader."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from runproj.core.environment import DockerSpec, EnvManager, EnvSpec, ImageBuild
from runproj.core.parameters import bind
from runproj.core.project import (
    Command,
    EntryPoint,
    Expectation,
    InputSpec,
    MetricSpec,
    Parameter,
    ParameterType,
    Project,
    Resources,
)
from runproj.descriptor import Severity, descriptor_schema, problems_of, read_project, starter
from runproj.descriptor.shapes import parse_duration
from runproj.errors import DescriptorError

T = ParameterType
EXAMPLES = Path(__file__).parents[2] / "example_projects"
VALIDATOR = jsonschema.Draft202012Validator(descriptor_schema())


@pytest.fixture
def folder(isolated: Path) -> Path:
    path = isolated / "project"
    path.mkdir()
    for name in ("requirements.txt", "environment.yml", "pylock.toml", "conda.yaml"):
        (path / name).write_text("")
    return path


def project(folder: Path, text: str, entry_point: str | None = "main") -> Project:
    (folder / "runproj.yaml").write_text(text)
    return read_project(folder, entry_point=entry_point)


def main(folder: Path, text: str) -> EntryPoint:
    """The entry point with these lines besides a command."""
    return project(folder, f"entry_points:\n  main:\n    command: t\n{text}").entry_points[0]


def errors(folder: Path, text: str) -> list[str]:
    (folder / "runproj.yaml").write_text(text)
    return [
        f"{p.line}:{p.column}: {p.message}" + (f" ({p.hint})" if p.hint else "")
        for p in problems_of(folder)
        if p.severity is Severity.ERROR
    ]


WHOLE = """\
runproj: 1
name: whole
environment:
  python: 3.10
  dependencies: [numpy>=1, "-r requirements.txt"]
  build_dependencies: [setuptools]
env: {OMP_NUM_THREADS: 1, DEBUG: true, A: project}
params:
  seed: {type: int, default: 0}
  lr: float
entry_points:
  main:
    help: Train it
    params:
      lr: {type: float, default: 0.10, min: 0, max: 1, help: Step}
      opt: {choices: [adam, sgd], default: adam}
      layers: {type: "list[int]", default: [64, 32]}
      cfg: {type: object, default: {a: [1.50, null], when: 2020-01-01}}
      flag: {type: bool, default: true}
      token: {type: secret, required: false}
      data: path
    command: [python, train.py, "--lr={lr}", "{layers...}", 3]
    env: {A: entry, B: ""}
    inputs:
      raw: https://example.org/x.csv
      table: {path: data/t.csv, sha256: 2CF24DBA5FB0A30E26E83B2AC5B9E29E1B161E5C1FA7425E73043362938B9824}
    outputs: ["models/**", metrics.json]
    metrics:
      - 'loss=(?P<value>\\S+) (?P<name>\\w+)'
      - {name: acc, pattern: 'acc (\\S+)'}
      - {file: metrics.json}
    timeout: 1h30m
    resources: {cpus: 2.5, memory: 4GB, gpus: 1, time: 2h, nodes: 1, partition: long}
    expect: {acc: 0.9, loss: {value: 1, rtol: 1.0e-2, atol: 0.1}}
  other:
    command: python other.py --seed {seed}
"""


def test_every_key(folder: Path) -> None:
    found = project(folder, WHOLE)
    assert found.environment == EnvSpec(
        origin="runproj.yaml (environment)",
        python="3.10",
        requirements=("numpy>=1", "-r requirements.txt"),
        build_requirements=("setuptools",),
    )
    assert found.entry_points[0] == EntryPoint(
        "main",
        Command(argv=("python", "train.py", "--lr={lr}", "{layers...}", "3")),
        (
            Parameter("seed", T.INT, "0", required=False),
            Parameter("lr", T.FLOAT, "0.10", minimum=0, maximum=1, help="Step", required=False),
            Parameter("opt", T.CHOICE, "adam", ("adam", "sgd"), required=False),
            Parameter("layers", T.LIST, "[64, 32]", declared_type="list[int]", required=False),
            Parameter("cfg", T.OBJECT, '{"a": [1.5, null], "when": "2020-01-01"}', required=False),
            Parameter("flag", T.BOOL, "true", required=False),
            Parameter("token", T.SECRET, required=False),
            Parameter("data", T.PATH),
        ),
        open=False,
        env=(("OMP_NUM_THREADS", "1"), ("DEBUG", "true"), ("A", "entry"), ("B", "")),
        inputs=(
            InputSpec("raw", "https://example.org/x.csv"),
            InputSpec("table", "data/t.csv", "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"),
        ),
        outputs=("models/**", "metrics.json"),
        metrics=(
            MetricSpec(pattern="loss=(?P<value>\\S+) (?P<name>\\w+)"),
            MetricSpec("acc", "acc (\\S+)"),
            MetricSpec(file="metrics.json"),
        ),
        expect=(Expectation("acc", 0.9), Expectation("loss", 1, 0.01, 0.1)),
        resources=Resources(2.5, "4GB", 1, "2h", 1, "long"),
        timeout=5400,
    )
    assert [p.name for p in found.entry_points[1].parameters] == ["seed", "lr"]
    assert found.entry_points[1].env == (("OMP_NUM_THREADS", "1"), ("DEBUG", "true"), ("A", "project"))
    assert problems_of(folder) == ()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ('python: "3.12"', EnvSpec(python="3.12")),
        ("python: 3.10", EnvSpec(python="3.10")),
        ("{requirements: [a, b]}", EnvSpec(requirements=("a", "b"))),
        ("{requirements: r/in.txt, dependencies: [c]}", EnvSpec(requirements=("c", "a", "-r r/b.txt"))),
        ("{lock: pylock.toml}", EnvSpec(origin="pylock.toml", lock_file="pylock.toml")),
        ("{conda: [python=3.9, numpy]}", EnvSpec(EnvManager.CONDA, python="3.9", conda=("numpy",), conda_python="python=3.9")),
        (
            "{conda: {dependencies: [a], channels: [b]}, dependencies: [c]}",
            EnvSpec(EnvManager.CONDA, conda=("a",), channels=("b",), requirements=("c",)),
        ),
        ("{conda: environment.yml, python: 3.8}", EnvSpec(EnvManager.CONDA, "environment.yml", "3.8")),
        ("{docker: 'python:3'}", EnvSpec(EnvManager.DOCKER, docker=DockerSpec("python:3"))),
        ("{docker: {image: x, volumes: [a]}}", EnvSpec(EnvManager.DOCKER, docker=DockerSpec("x", ("a",)))),
        (
            "{docker: {dockerfile: d/Dockerfile, build_args: {A: 1}, target: t, environment: {B: 2}, gpus: all, shm_size: 1GB,"
            " network: none}}",
            EnvSpec(
                EnvManager.DOCKER,
                docker=DockerSpec(
                    environment=(("B", "2"),),
                    build=ImageBuild("d/Dockerfile", "d", (("A", "1"),), "t"),
                    gpus="all",
                    shm_size="1GB",
                    network="none",
                ),
            ),
        ),
        ("{manager: system}", EnvSpec(EnvManager.SYSTEM)),
        ("{conda: [numpy], manager: virtualenv}", EnvSpec(EnvManager.VIRTUALENV, conda=("numpy",))),
        ("requirements.txt", EnvSpec(origin="requirements.txt")),
        ("environment.yml", EnvSpec(EnvManager.CONDA, "environment.yml")),
        ("pylock.toml", EnvSpec(origin="pylock.toml", lock_file="pylock.toml")),
    ],
)
def test_environments(folder: Path, lines: str, expected: EnvSpec) -> None:
    (folder / "r").mkdir()
    (folder / "r/in.txt").write_text("a\n-r b.txt\n")
    spec = project(folder, f"environment:\n  {lines}\n", None).environment
    if expected.origin == "nothing declared":
        assert spec.origin == "runproj.yaml (environment)"
        spec = EnvSpec(**{**vars(spec), "origin": expected.origin})
    assert spec == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("entrypoints: {}\n", "1:1: unknown key 'entrypoints' (Did you mean 'entry_points'?)"),
        ("xyzzy: 1\n", "1:1: unknown key 'xyzzy' (known keys: runproj, name, "),
        ("entry_points: {main: {command: t, param: {}}}\n", "1:35: unknown key 'param' (Did you mean 'params'?)"),
        ("entry_points: {main: {}}\n", "1:22: the key 'command' is missing"),
        ("entry_points: {main: }\n", "1:22: a mapping is wanted here, not nothing"),
        ("entry_points: {main: {command: }}\n", "1:32: a text or number or a list is wanted here, not nothing"),
        ("entry_points: {main: {command: []}}\n", "1:32: the list is empty"),
        ("entry_points: {main: {command: '  '}}\n", "1:32: a text is wanted, and this is empty"),
        ("name: [a]\n", "1:7: a text or number is wanted here, not a list"),
        ("name: yes\n", "1:7: 'yes' is a yes or no in YAML, and a text is wanted (write it in quotes)"),
        ("runproj: 2\n", "1:10: the file has version 2; this runproj knows 1 (upgrade runproj)"),
        ("runproj: x\n", "1:10: 'x' is not a whole number"),
        ("env: {A-B: 1}\n", "1:7: 'A-B' is not the name of an environment variable"),
        ("env: {A: [1]}\n", "1:10: a text or number is wanted here, not a list"),
        ("env: {A: }\n", "1:10: a text or number is wanted here, not nothing"),
        ("params: {-a: float}\n", "1:10: '-a' is not a name that a parameter can have"),
        ("params: {a: {type: float, default: abc}}\n", "1:36: the default of parameter 'a' does not fit: 'abc' is not a float"),
        ("params: {a: {type: float, default: 2, max: 1}}\n", "1:36: the default of parameter 'a' does not fit: '2' is more"),
        ("params: {a: {min: 1}}\n", "1:19: 'min' is for parameters of type int, float or seed; 'a' is string"),
        ("params: {a: {type: int, min: 2, max: 1}}\n", "1:30: the least value of 'a' is more than the greatest"),
        ("params: {a: choice}\n", "1:13: the parameter 'a' has no choices (add `choices: [a, b]`)"),
        ("params: {a: {choices: []}}\n", "1:23: the list is empty"),
        ("params: {a: {choices: [x], default: y}}\n", "1:37: the default of parameter 'a' does not fit: 'y' is not one of x"),
        ("params: {a: {required: true, default: y}}\n", "1:24: the parameter 'a' has a default, so it cannot be required"),
        ("params: {a: {required: maybe}}\n", "1:24: 'maybe' is not true or false"),
        ("params: {a: {type: secret, default: y}}\n", "1:37: the secret 'a' has a default, so it is none"),
        ("params: {a: {default: [1]}}\n", "1:23: the default is a list, and the type is string (use type list or object)"),
        ("params: {a: 0.1}\n", ""),
        ("params: {a: {help: x, description: y}}\n", "1:23: 'description' and 'help' are the same key"),
        ("entry_points: {m: {command: t, params: {}, parameters: {}}}\n", "'parameters' and 'params' are the same key"),
        ("entry_points: {m: {command: 't {x}'}}\n", "1:29: the command uses {x}, but there is no parameter 'x'"),
        ("params: {lr: float}\nentry_points: {m: {command: [t, '{Lr}']}}\n", "2:29: the command uses {Lr}, but there is no"),
        ("params: {l: list}\nentry_points: {m: {command: [t, 'a{l...}']}}\n", "2:29: {l...} has to be a word of its own"),
        ("entry_points: {m: {command: t, timeout: soon}}\n", "1:41: 'soon' is not a duration"),
        ("entry_points: {m: {command: t, timeout: 0}}\n", "1:41: '0' is not a duration"),
        ("entry_points: {m: {command: t, outputs: [../x]}}\n", "1:41: the output '../x' is outside of the project"),
        ("entry_points: {m: {command: t, outputs: /x}}\n", "1:41: the output '/x' is outside of the project"),
        ("entry_points: {m: {command: t, metrics: ['(']}}\n", "1:41: '(' is not a regular expression"),
        ("entry_points: {m: {command: t, metrics: ['(x)']}}\n", "does not say what the metric is called"),
        ("entry_points: {m: {command: t, metrics: [{name: a, pattern: x}]}}\n", "'x' does not say where the value is"),
        ("entry_points: {m: {command: t, metrics: [{name: a}]}}\n", "1:42: a metric needs one of `pattern` and `file`"),
        ("entry_points: {m: {command: t, metrics: {file: /etc/x}}}\n", "the file '/etc/x' is outside of the project"),
        ("entry_points: {m: {command: t, inputs: {a: {sha256: x}}}}\n", "1:53: 'x' is not a sha256"),
        ("entry_points: {m: {command: t, inputs: {a: {}}}}\n", "1:44: the input 'a' needs one of `path` and `uri`"),
        ("entry_points: {m: {command: t, resources: {cpus: 0}}}\n", "1:50: 0 is too small"),
        ("entry_points: {m: {command: t, resources: {memory: lots}}}\n", "1:52: 'lots' is not a size"),
        ("entry_points: {m: {command: t, expect: {a: {rtol: 1}}}}\n", "1:44: the key 'value' is missing"),
        ("entry_points: {m: {command: t, expect: {a: x}}}\n", "1:44: 'x' is not a number"),
        (
            "environment: {manager: condo}\n",
            "1:24: 'condo' is not one of virtualenv, system, conda, docker (Did you mean 'conda'?)",
        ),
        ("environment: {lock: pylock.toml, dependencies: [a]}\n", "1:48: 'dependencies' and 'lock' exclude each other"),
        ("environment: {docker: {gpus: 1}}\n", "1:23: one of the keys 'image', 'dockerfile' is missing"),
        ("environment: {docker: {image: a, dockerfile: b}}\n", "1:46: 'image' and 'dockerfile' exclude each other"),
        ("environment: {docker: {image: a, context: b}}\n", "1:43: 'context' means nothing without 'dockerfile'"),
        ("environment: {docker: a, python: 3}\n", "1:34: 'python' and 'docker' exclude each other"),
        ("environment: {lock: gone.toml}\n", "1:14: gone.toml does not exist in the project"),
        ("environment: a.yaml\nconda_env: conda.yaml\n", "2:12: only one of these can be there: environment, conda_env"),
        ("environment: {requirements: /etc/passwd}\n", "1:14: /etc/passwd is outside of the project"),
    ],
)
def test_errors_have_places_and_suggestions(folder: Path, text: str, message: str) -> None:
    found = errors(folder, text)
    if not message:
        assert found == []
        return
    assert any(message in item for item in found), found
    with pytest.raises(DescriptorError) as caught:
        project(folder, text, None)
    assert message.split(": ")[-1][:40] in str(caught.value)


def test_all_errors_are_reported_at_once_in_order(folder: Path) -> None:
    found = errors(folder, "nmae: x\nentry_points:\n  a: {comand: t}\n  b: {command: 't {x}', timeout: never}\n")
    assert [item.split(": ")[0] for item in found] == ["1:1", "3:6", "3:7", "4:16", "4:34"]


def test_an_unknown_type_is_a_string_with_a_warning(folder: Path) -> None:
    found = project(folder, "params: {a: tensor}\nentry_points: {main: {command: 't {a}'}}\n")
    assert found.entry_points[0].parameters == (Parameter("a", declared_type="tensor"),)
    assert found.notes == ("runproj.yaml:1:13: the type 'tensor' of parameter 'a' is not known; it is taken as a string",)


@pytest.mark.parametrize(
    ("word", "kind"),
    [("integer", T.INT), ("str", T.STRING), ("boolean", T.BOOL), ("url", T.URI), ("dict", T.OBJECT), ("list[str]", T.LIST)],
)
def test_other_words_for_types(folder: Path, word: str, kind: ParameterType) -> None:
    assert main(folder, f'    params: {{a: "{word}"}}\n').parameters[0].type is kind


def test_a_default_of_null_is_none_and_an_empty_text_is_one(folder: Path) -> None:
    parameters = main(folder, "    params: {a: {default: }, b: {default: ''}, c: }\n").parameters
    assert [p.default for p in parameters] == [None, "", None]


def test_merge_keys_share_parts(folder: Path) -> None:
    text = "entry_points:\n  main: &m {command: t, timeout: 5}\n  other: {<<: *m, command: u}\n"
    assert [(p.command.shell, p.timeout) for p in project(folder, text).entry_points] == [("t", 5), ("u", 5)]


def test_an_undeclared_parameter_is_an_error(folder: Path) -> None:
    assert main(folder, "").open is False


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("90s", 90), ("30m", 1800), ("2h", 7200), ("1d12h", 129600), ("1h30m5s", 5405),
        ("", None), ("0s", None), ("h", None), ("5x", None), ("-1", None)],
)  # fmt: skip
def test_durations(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds


# -- the schema


def accepts(text: str) -> bool:
    return VALIDATOR.is_valid(yaml.safe_load(text))


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(descriptor_schema())


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/runproj.yaml")), ids=lambda path: path.parent.name)
def test_the_examples_are_valid(path: Path) -> None:
    assert problems_of(path) == ()
    assert accepts(path.read_text())


SHAPES = [
    WHOLE.replace(", when: 2020-01-01", ""),
    "",
    "entry_points:\n",
    "name: 5\n",
    "name: yes\n",
    "name: [a]\n",
    "nmae: x\n",
    "params: {a: float, b: , c: {type: int, default: 1}}\n",
    "params: {-a: float}\n",
    "params: {a: [1]}\n",
    "params: {a: {min: x}}\n",
    "params: {a: {help: x, description: y}}\n",
    "params: {a: {choices: []}}\n",
    "params: {a: {choices: [1, true, x]}}\n",
    "params: {a: {required: 3}}\n",
    "env: {A: 1, B: true, C: x}\n",
    "env: {A-B: 1}\n",
    "env: {A: }\n",
    "entry_points: {m: {}}\n",
    "entry_points: {m: }\n",
    "entry_points: {m: {command: t}}\n",
    "entry_points: {m: {command: [t, 1, true]}}\n",
    "entry_points: {m: {command: []}}\n",
    "entry_points: {m: {command: ' '}}\n",
    "entry_points: {m: {command: t, timeout: 5}}\n",
    "entry_points: {m: {command: t, timeout: 0}}\n",
    "entry_points: {m: {command: t, timeout: 1h30m}}\n",
    "entry_points: {m: {command: t, timeout: soon}}\n",
    "entry_points: {m: {command: t, params: {}, parameters: {}}}\n",
    "entry_points: {m: {command: t, outputs: x}}\n",
    "entry_points: {m: {command: t, outputs: [x, y]}}\n",
    "entry_points: {m: {command: t, outputs: {a: x}}}\n",
    "entry_points: {m: {command: t, metrics: {file: x}}}\n",
    "entry_points: {m: {command: t, metrics: [{fiel: x}]}}\n",
    "entry_points: {m: {command: t, inputs: {a: x}}}\n",
    "entry_points: {m: {command: t, inputs: {a: {path: x, sha256: y}}}}\n",
    "entry_points: {m: {command: t, resources: {cpus: 0.5, gpus: 0}}}\n",
    "entry_points: {m: {command: t, resources: {cpus: 0}}}\n",
    "entry_points: {m: {command: t, resources: {gpus: 1.5}}}\n",
    "entry_points: {m: {command: t, resources: {memory: lots}}}\n",
    "entry_points: {m: {command: t, resources: {memory: 4GB}}}\n",
    "entry_points: {m: {command: t, expect: {a: 1, b: {value: 1}}}}\n",
    "entry_points: {m: {command: t, expect: {b: {}}}}\n",
    "environment: {python: 3.10, dependencies: [numpy]}\n",
    "environment: {dependencies: numpy}\n",
    "environment: {requirements: requirements.txt}\n",
    "environment: {requirements: [a]}\n",
    "environment: {manager: condo}\n",
    "environment: {docker: {volumes: []}}\n",
    "environment: {docker: {image: a, dockerfile: b}}\n",
    "environment: {docker: {image: a, target: b}}\n",
    "environment: {docker: {dockerfile: b, target: b, environment: {A: 1}}}\n",
    "environment: {docker: {image: a, environment: [A, [B, c]]}}\n",
    "environment: {docker: {image: a, environment: [[B]]}}\n",
    "environment: {conda: [a]}\n",
    "environment: {conda: {channels: [a]}}\n",
    "environment: [a]\n",
    "conda_env: conda.yaml\n",
    "docker_env: image\n",
    "runproj: 0\n",
    "runproj: 1\n",
    "runproj: one\n",
    "- a\n",
]


@pytest.mark.parametrize("text", SHAPES)
def test_schema_and_reader_agree(folder: Path, text: str) -> None:
    found = errors(folder, text)
    assert accepts(text) == (not found), found


def test_every_key_of_the_schema_is_explained() -> None:
    todo: list[object] = [descriptor_schema()]
    count = 0
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            properties = item.get("properties")
            for name, value in properties.items() if isinstance(properties, dict) else ():
                assert value["description"], name
                count += 1
            todo += item.values()
        elif isinstance(item, list):
            todo += item
    assert count > 50


# -- the starter


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"train.py": ""},
        {"run.sh": ""},
        {"-x y'{z}.py": ""},
        {"a.py": "", "main.py": ""},
        {"requirements.txt": "numpy\n"},
        {"uv.lock": 'requires-python = ">=3.9"\n'},
        {"environment.yml": "dependencies: [python=3.9]\n"},
        {"python_env.yaml": "python: 3.9\n"},
        {"pyproject.toml": "not toml"},
        {"notebook.ipynb": "{}"},
    ],
)
@pytest.mark.parametrize("name", ["project", "true", "123", 'a"b: [x'])
def test_a_starter_is_valid_as_it_stands(tmp_path: Path, files: dict[str, str], name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    for file, content in files.items():
        (folder / file).write_text(content)
    text = starter(folder)
    (folder / "runproj.yaml").write_text(text)
    if "pyproject.toml" not in files:
        assert problems_of(folder) == ()
        found = read_project(folder, entry_point="main")
        assert found.name == name
        words = bind(found.entry_points[0], [])[0].argv({})
        assert any(name in words[1] for name in files) or words == ("python", "train.py", "--seed=0")
    assert accepts(text)


def test_a_starter_names_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").touch()
    (tmp_path / "train.py").touch()
    assert "#   requirements: requirements.txt" in starter(tmp_path)
    assert "command: [python, train.py]" in starter(tmp_path)


def test_a_starter_with_its_comments_taken_off_is_valid_too(tmp_path: Path) -> None:
    lines = starter(tmp_path).splitlines()
    kept = [re.sub(r"^(    (?:  )?)# (?![ETA][a-z ])", r"\1", line) for line in lines]
    text = "\n".join(line.replace('"…"', "0" * 64) for line in kept) + "\n"
    (tmp_path / "runproj.yaml").write_text(text)
    assert problems_of(tmp_path) == (), text
    point = read_project(tmp_path, entry_point="main").entry_points[0]
    assert point.timeout == 7200
    assert len(point.parameters) == 4


# -- the reference page


PAGE = Path(__file__).parents[2] / "docs" / "reference" / "descriptor.md"


def test_the_page_names_every_key_and_its_example_is_valid(folder: Path) -> None:
    text = PAGE.read_text()
    named = set(re.findall(r"`(\w+)`", text)) | set(re.findall(r"\w+", " ".join(re.findall(r"`\{([^`]*)\}?`", text))))
    keys: set[str] = set()
    todo: list[object] = [descriptor_schema()]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            properties = item.get("properties")
            keys |= set(properties) if isinstance(properties, dict) else set()
            todo += item.values()
        elif isinstance(item, list):
            todo += item
    assert keys - named - {"description", "type", "default"} == set()
    examples = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "entry_points" in block]
    for example in examples:
        assert errors(folder, example.replace("2cf24dba…", "0" * 64)) == []
    assert len(examples) == 1

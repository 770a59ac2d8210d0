"""Projects made after each cause for which public projects no longer run: each runs here, or names the command that fixes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import Repository
from support.program import Cli

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(3000)]

YEARS_AGO = "2021-06-15T12:00:00+00:00"

GENERATED_YEARS_AGO = r"""
from google.protobuf import descriptor as d
key = d._internal_create_key
DESCRIPTOR = d.FileDescriptor(name='t.proto', package='t', syntax='proto3', serialized_options=None, create_key=key,
    serialized_pb=b'\x0a\x07t.proto\x12\x01t\x22\x0e\x0a\x01M\x12\x09\x0a\x01x\x18\x01\x20\x01\x28\x05\x62\x06proto3')
M = d.Descriptor(name='M', full_name='t.M', filename=None, file=DESCRIPTOR, containing_type=None, create_key=key,
    fields=[d.FieldDescriptor(name='x', full_name='t.M.x', index=0, number=1, type=5, cpp_type=1, label=1,
        has_default_value=False, default_value=0, message_type=None, enum_type=None, containing_type=None,
        is_extension=False, extension_scope=None, serialized_options=None, file=DESCRIPTOR, create_key=key)],
    extensions=[], nested_types=[], enum_types=[], serialized_options=None, is_extendable=False, syntax='proto3',
    extension_ranges=[], oneofs=[])
"""
"""What the protocol compiler wrote for `message M { int32 x = 1; }` before protobuf 3.20; protobuf 4 refuses it."""


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for the module, so that packages are downloaded once."""
    return tmp_path_factory.mktemp("home")


class Machine:
    def __init__(self, home: Path) -> None:
        self.run = Cli(home)
        self.env = self.run.env
        self.env["RUNPROJ_HOME"] = str(home)

    def last(self) -> dict:
        return json.loads(self.run("runs", "show", "@last", "--json").stdout)


@pytest.fixture
def machine(shared_home: Path, isolated: Path) -> Machine:
    return Machine(shared_home)


def mlproject(command: str, environment: str = "python_env: python_env.yaml") -> str:
    return f"name: old\n{environment}\nentry_points:\n  main:\n    command: {json.dumps(command)}\n"


def test_packages_that_conda_yaml_lists_outside_pip_are_there(machine: Machine, repository: Repository) -> None:
    conda = "name: old\ndependencies:\n- python=3.9\n- click\n- pyyaml=5.4\n- cudatoolkit=10\n- pip:\n  - six\n"
    files = {"MLproject": mlproject("python main.py", "conda_env: conda.yaml"), "conda.yaml": conda}
    repository.commit({**files, "main.py": "import click, yaml, six; print(yaml.__version__)\n"}, date=YEARS_AGO)
    result = machine.run("run", repository.url)
    assert (result.returncode, result.stdout) == (0, "5.4.1\n"), result.stderr
    assert "cudatoolkit" in result.stderr, "what cannot be mapped is said"


def test_an_import_that_nothing_declares_is_named_with_the_command_that_adds_it(machine: Machine, repository: Repository) -> None:
    repository.commit({"main.py": "import yaml; print(yaml.safe_load('a: 1'))\n"})
    result = machine.run("run", repository.url, "-e", "main.py")
    assert result.returncode == 1
    assert "--with" in result.stderr
    assert "PyYAML" in result.stderr
    fixed = machine.run("run", repository.url, "-e", "main.py", "--with", "PyYAML")
    assert fixed.stdout == "{'a': 1}\n", fixed.stderr
    assert "PyYAML" in machine.last()["plan"]["lock"]["extra"]


def test_pkg_resources_is_there_for_code_that_expects_it(machine: Machine, repository: Repository) -> None:
    environment = 'python: "3.9"\nbuild_dependencies: [pip, setuptools, wheel]\ndependencies: [six]\n'
    files = {"MLproject": mlproject("python main.py"), "python_env.yaml": environment}
    repository.commit(
        {**files, "main.py": "import pkg_resources; print(pkg_resources.get_distribution('six').project_name)\n"}, date=YEARS_AGO
    )
    result = machine.run("run", repository.url)
    assert (result.returncode, result.stdout) == (0, "six\n"), result.stderr


def test_unpinned_packages_are_those_of_the_commits_time(machine: Machine, repository: Repository) -> None:
    environment = 'python: "3.9"\ndependencies: [protobuf]\n'
    files = {"MLproject": mlproject("python main.py"), "python_env.yaml": environment}
    code = {"thing_pb2.py": GENERATED_YEARS_AGO, "main.py": "import thing_pb2; print('descriptor made')\n"}
    repository.commit({**files, **code}, date=YEARS_AGO)
    result = machine.run("run", repository.url)
    assert (result.returncode, result.stdout) == (0, "descriptor made\n"), result.stderr
    lock = machine.last()["plan"]["lock"]
    assert lock["as_of"].startswith("2021-06-1")
    today = machine.run("run", repository.url, "--as-of", "now")
    assert today.returncode == 1
    assert "--with" in today.stderr
    assert "protobuf<" in today.stderr


LOOSE = {
    "MLproject": "name: roads\nentry_points:\n  main:\n    parameters: {size: {type: int, default: 4}}\n"
    '    command: "python analyse.py --size {size}"\n',
    "requirements.txt": "click\nnetworkx>=2\n",
    "analyse.py": """
import click
import networkx as nx

@click.command()
@click.option("--size", type=int)
def main(size):
    graph = nx.grid_2d_graph(size, size)
    click.echo("-" * min(3, click.get_terminal_size()[0]))
    click.echo(nx.info(graph))

if __name__ == "__main__":
    main()
""",
}
"""A project of 2021 that lists what it needs and no versions.  What it calls left click in 2022 and networkx in 2023."""


def test_a_loose_project_of_years_ago_fails_with_todays_packages_and_runs_with_those_of_its_commit(
    machine: Machine, repository: Repository
) -> None:
    repository.commit(LOOSE, date="2021-09-15T12:00:00+00:00")
    result = machine.run("run", repository.url, "--as-of", "commit")
    assert result.returncode == 0, result.stderr
    assert "Graph with 16 nodes and 24 edges" in result.stdout
    lock = machine.last()["plan"]["lock"]
    assert lock["as_of"] == "2021-09-17T00:00:00Z"
    assert '"networkx"\nversion = "2.6.3"' in lock["pylock"]
    today = machine.run("run", repository.url, "--as-of", "now")
    assert today.returncode == 1
    assert "AttributeError" in today.stderr
    assert "get_terminal_size" in today.stderr
    assert "Graph" not in today.stdout
    by_default = machine.run("run", repository.url, "-P", "size=2")
    assert "Graph with 4 nodes and 4 edges" in by_default.stdout
    assert machine.last()["plan"]["lock"]["digest"] == lock["digest"]


@pytest.mark.parametrize("wanted", ["3.8.2", "3.10.7"])
def test_a_missing_patch_release_falls_back_to_its_neighbour(machine: Machine, repository: Repository, wanted: str) -> None:
    files = {"MLproject": mlproject("python main.py"), "python_env.yaml": f"python: {wanted}\n"}
    repository.commit({**files, "main.py": "import sys; print('%d.%d' % sys.version_info[:2])\n"}, date=YEARS_AGO)
    result = machine.run("run", repository.url)
    assert (result.returncode, result.stdout) == (0, wanted.rpartition(".")[0] + "\n"), result.stderr
    assert wanted in result.stderr, "the fallback is said"
    assert any(wanted in note for note in machine.last()["plan"]["notes"]), "and recorded"
    strict = machine.run("run", repository.url, "--strict")
    assert strict.returncode == 125
    assert wanted in strict.stderr


def test_an_old_mlflow_client_logs_into_the_run(machine: Machine, repository: Repository) -> None:
    code = "import mlflow\nprint(mlflow.__version__)\nmlflow.log_param('depth', 3)\nmlflow.log_metric('acc', 0.5)\n"
    files = {"MLproject": mlproject("python main.py"), "python_env.yaml": 'python: "3.9"\ndependencies: [mlflow-skinny]\n'}
    repository.commit({**files, "main.py": code}, date=YEARS_AGO)
    result = machine.run("run", repository.url)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("1."), "a client of that time"
    run = machine.last()["run"]
    assert {p["key"]: p["value"] for p in run["params"]} == {"depth": "3"}
    assert {m["key"]: m["value"] for m in run["metrics"]} == {"acc": 0.5}


def test_a_package_in_a_submodule_is_found(machine: Machine, repository: Repository, make_repository) -> None:
    library = make_repository("library")
    library.commit({"library.py": "WORD = 'from the submodule'\n"})
    repository.commit({"main.py": "import sys; sys.path.insert(0, 'vendored'); import library; print(library.WORD)\n"})
    repository.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", library.url, "vendored")
    repository.commit({})
    result = machine.run("run", repository.url, "-e", "main.py")
    assert (result.returncode, result.stdout) == (0, "from the submodule\n"), result.stderr
    assert [s["commit"] for s in machine.last()["plan"]["code"]["submodules"]] == [library.head]


def test_an_undeclared_placeholder_is_an_error_before_anything_is_built(machine: Machine, repository: Repository) -> None:
    text = "entry_points:\n  main:\n    parameters: {alpha: float}\n    command: python main.py {alpha} {alhpa}\n"
    repository.commit({"MLproject": text, "main.py": ""})
    result = machine.run("run", repository.url, "-P", "alpha=1")
    assert result.returncode == 125
    assert "alhpa" in result.stderr
    assert "alpha" in result.stderr


@pytest.mark.parametrize("requirement", ["six==99.0", "no-such-package-of-anybody-1234567"])
def test_a_requirement_that_cannot_be_had_is_explained_in_the_resolvers_words(
    machine: Machine, repository: Repository, requirement: str
) -> None:
    repository.commit({"requirements.txt": requirement + "\n", "main.py": ""})
    before = machine.run("runs", "list", "--json").stdout
    result = machine.run("run", repository.url, "-e", "main.py")
    assert result.returncode == 125
    assert requirement.partition("=")[0] in result.stderr
    assert "Traceback" not in result.stderr
    assert machine.run("runs", "list", "--json").stdout == before


def test_a_download_without_end_is_ended_by_the_timeout(machine: Machine, repository: Repository) -> None:
    repository.commit({"main.py": "import time\nprint('downloading', flush=True)\ntime.sleep(600)\n"})
    result = machine.run("run", repository.url, "-e", "main.py", "--timeout", "2")
    assert result.returncode == 124
    assert "timed out" in result.stderr

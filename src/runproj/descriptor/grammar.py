"""What may stand in a descriptor, as tables: the reader reads by them, and the published JSON Schema is generated from them."""

from __future__ import annotations

from runproj.core.environment import EnvManager
from runproj.core.parameters import KEY
from runproj.descriptor.shapes import (
    Anything,
    Duration,
    Either,
    Field,
    Flag,
    ListOf,
    MapOf,
    Number,
    Record,
    Schema,
    Text,
    Word,
    nullable,
)

VERSION = 1

_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
_SHA256 = r"[0-9a-fA-F]{64}"
_SIZE = r"\d+(\.\d+)?\s*([kKmMgGtT]([iI]?[bB])?|[bB])?"


_PARAMETER = Record(
    {
        "type": Field(
            Text(
                examples=(
                    "string",
                    "int",
                    "float",
                    "bool",
                    "path",
                    "uri",
                    "choice",
                    "list",
                    "list[int]",
                    "object",
                    "secret",
                    "seed",
                )
            ),
            "Which texts are valid.  Without it: choice where there are choices, else string.",
        ),
        "default": Field(Anything(), "The value where none is given; without one, a value has to be given."),
        "min": Field(Number(), "The least value of an int or float."),
        "max": Field(Number(), "The greatest value of an int or float."),
        "choices": Field(ListOf(Text(any_scalar=True), least=1), "The values there are."),
        "required": Field(Flag(), "false: without a value and a default, the parameter is an empty text."),
        "help": Field(Text(any_scalar=True), "What the parameter is, for people."),
        "description": Field(Text(any_scalar=True), "Another name of `help`.", same_as="help"),
    }
)
_PARAMETERS = MapOf(
    Either((Text(examples=("float", "path")), _PARAMETER)), KEY.pattern, "a name that a parameter can have", nullable=True
)
_ENV = MapOf(Text(any_scalar=True), _VARIABLE, "the name of an environment variable")
_VARIABLES = ListOf(Either((Text(), ListOf(Text(any_scalar=True), least=2))))
_DOCKER = Record(
    {
        "image": Field(Text(examples=("python:3.12-slim",)), "The image, by tag or digest.", required=True),
        "volumes": Field(ListOf(Text()), "Folders of the host to mount: `host:container[:mode]`.", nullable=True),
        "environment": Field(
            _VARIABLES,
            "Variables: a name is copied from the host, a pair [name, value] is set.",
            nullable=True,
        ),
    }
)
_OUR_DOCKER = Record(
    {
        "image": Field(Text(examples=("python:3.12-slim",)), "The image, by tag or digest."),
        "dockerfile": Field(Text(examples=("Dockerfile",)), "Or: the Dockerfile of the project to build it from."),
        "context": Field(
            Text(), "The folder that the Dockerfile copies from; by default the one it is in.  .dockerignore holds."
        ),
        "build_args": Field(_ENV, "Values of the Dockerfile's ARGs.", nullable=True),
        "target": Field(Text(), "The stage of the Dockerfile to build."),
        "volumes": _DOCKER.fields["volumes"],
        "environment": Field(
            Either((_VARIABLES, _ENV)), "Variables: a name is copied from the host, a pair [name, value] is set.", nullable=True
        ),
        "gpus": Field(Text(examples=("all", "1", "device=0,1")), "Graphics processors for the container."),
        "shm_size": Field(Text(_SIZE, 'a size like "2GB"', examples=("2GB",)), "Shared memory (/dev/shm)."),
        "network": Field(Text(examples=("bridge", "none", "host")), "The network; by default one that reaches out and the run."),
        "user": Field(Text(examples=("1000:1000",)), "Who the command is; by default whoever runs it."),
    },
    one_of=("image", "dockerfile"),
    needs=dict.fromkeys(("context", "build_args", "target"), "dockerfile"),
)
_DEPENDENCIES = ListOf(Text(examples=("numpy>=1.26", "-r requirements.txt", "-e .")))
_ENVIRONMENT = Record(
    {
        "python": Field(Text(examples=("3.12", ">=3.10,<3.13")), "The Python version, or a specifier."),
        "dependencies": Field(_DEPENDENCIES, "Packages to install: lines of a requirements file."),
        "requirements": Field(
            Either((Text(examples=("requirements.txt",)), _DEPENDENCIES)),
            "A requirements file, or the same as `dependencies`.",
        ),
        "build_dependencies": Field(_DEPENDENCIES, "Packages that have to be there before the others are built."),
        "lock": Field(Text(examples=("pylock.toml", "uv.lock")), "A lock file of the project's own, used as it is."),
        "conda": Field(
            Either(
                (
                    Text(examples=("environment.yml",)),
                    ListOf(Text()),
                    Record(
                        {
                            "dependencies": Field(ListOf(Text()), "Packages in conda's words.", required=True),
                            "channels": Field(ListOf(Text()), "Channels to take them from."),
                        }
                    ),
                )
            ),
            "A conda environment file, or conda packages.",
        ),
        "docker": Field(Either((Text(examples=("python:3.12-slim",)), _OUR_DOCKER)), "An image to run in."),
        "manager": Field(Word(tuple(m.value for m in EnvManager)), "Who makes the environment; by default what the keys say."),
    }
)
_INPUT = Record(
    {
        "path": Field(Text(), "A file or folder of the project, or, with `from`, of the outputs of that entry point."),
        "from": Field(Text(), "The entry point that puts it out; it is done before."),
        "uri": Field(Text(examples=("https://example.org/data.csv",)), "Where the input is."),
        "sha256": Field(Text(_SHA256, "a sha256 (64 hexadecimal digits)"), "What its content has to be."),
    }
)
_METRIC = Record(
    {
        "name": Field(Text(), "The metric's name, where the pattern has no group `name`."),
        "pattern": Field(Text(), "A regular expression over lines of standard output: groups `name` and `value`, or one group."),
        "file": Field(Text(examples=("metrics.json",)), "A JSON or CSV file that the command leaves in the project's folder."),
    }
)
_EXPECT = Record(
    {
        "value": Field(Number(), "What the metric should come out as.", required=True),
        "rtol": Field(Number(least=0), "How far it may be off, relative to the value."),
        "atol": Field(Number(least=0), "How far it may be off."),
    }
)
_RESOURCES = Record(
    {
        "cpus": Field(Number(least=0, above=True), "Processor cores."),
        "memory": Field(Text(_SIZE, 'a size like "4GB"', examples=("4GB",)), "Main memory."),
        "gpus": Field(Number(least=0, whole=True), "Graphics processors."),
        "time": Field(Duration(), "How long the job may take; backends that queue jobs ask for that much."),
        "nodes": Field(Number(least=1, whole=True), "Machines."),
        "partition": Field(Text(), "The queue or partition of the cluster."),
    }
)
_SWEEP = Record(
    {
        "method": Field(Word(("grid", "random", "tpe", "cmaes")), "Who chooses the values: grid where they can be counted."),
        "metric": Field(Text(), "The metric to look at."),
        "goal": Field(Word(("maximize", "minimize")), "What is better."),
        "trials": Field(Number(least=1, whole=True), "How many trials."),
        "parallel": Field(Number(least=1, whole=True), "How many at a time."),
        "seed": Field(Number(whole=True), "What random choices come from."),
        "prune": Field(Word(("none", "median", "asha")), "How hopeless trials are found while they run."),
        "max_time": Field(Duration(), "No further trial is begun after that long."),
        "max_failures": Field(Number(least=1, whole=True), "So many failed trials end the sweep."),
        "space": Field(
            MapOf(Either((Text(any_scalar=True), ListOf(Text(any_scalar=True), least=1)))),
            "What is tried for each parameter: a list of values, or a text like 2..8, 0.1..0.9:0.1, 1e-4..1:log.",
            nullable=True,
        ),
    }
)
_COMMAND = Either((Text(), ListOf(Text(any_scalar=True), least=1)))
_ENTRY_POINT = Record(
    {
        "command": Field(
            _COMMAND,
            "What to run: a shell command, or a list of words that no shell ever sees.  {name} is a parameter.",
            required=True,
        ),
        "parameters": Field(_PARAMETERS, "The inputs of the command.", nullable=True),
        "params": Field(_PARAMETERS, "Another name of `parameters`.", nullable=True, same_as="parameters"),
        "env": Field(_ENV, "Environment variables, in addition to the project's.", nullable=True),
        "inputs": Field(
            MapOf(Either((Text(), _INPUT))), "Data the command reads: a path or URI each, checked and recorded.", nullable=True
        ),
        "outputs": Field(
            Either((Text(), ListOf(Text()))), "Files to keep as artifacts: patterns like `models/**`.", nullable=True
        ),
        "metrics": Field(
            Either((ListOf(Either((Text(), _METRIC))), _METRIC, Text())),
            "Where metrics are found without a logging call.",
            nullable=True,
        ),
        "needs": Field(
            Either((ListOf(Text(), least=1), Text())),
            "Entry points that have to be done before, beside those that inputs come from.",
            nullable=True,
        ),
        "code": Field(
            Either((ListOf(Text(), least=1), Text())),
            "Files and folders of the project, as patterns, that decide its result; by default all.  A pipeline runs it again "
            "where one of them has changed.",
            nullable=True,
        ),
        "backend": Field(Text(), "The backend, or the profile of whoever runs it, where none is named."),
        "timeout": Field(Duration(), 'Stop the command after that long: seconds, or "90s", "30m", "2h".'),
        "resources": Field(_RESOURCES, "What the command needs.", nullable=True),
        "expect": Field(MapOf(Either((Number(), _EXPECT))), "What metrics should come out as, with tolerances.", nullable=True),
        "sweep": Field(_SWEEP, "What `runproj sweep` searches, and how.", nullable=True),
        "help": Field(Text(any_scalar=True), "What the entry point does, for people."),
    }
)
_SPARK = Field(Anything(), "A Databricks job of an MLproject; read and left alone.")

RUNPROJ = Record(
    {
        "runproj": Field(Number(least=1, whole=True), f"The version of this format: {VERSION}."),
        "name": Field(Text(), "The project's name."),
        "environment": Field(
            Either((_ENVIRONMENT, Text(examples=("requirements.txt", "environment.yml")))),
            "What the commands need to run: a file that says it, or the keys here.  Without it, well-known files are looked for.",
        ),
        "python_env": Field(
            Text(examples=("python_env.yaml",)), "As in an MLproject: the file with Python version and packages."
        ),
        "conda_env": Field(Text(examples=("conda.yaml",)), "As in an MLproject: a conda environment file."),
        "docker_env": Field(Either((_DOCKER, Text())), "As in an MLproject: the image to run in."),
        "env": Field(_ENV, "Environment variables of every entry point.", nullable=True),
        "params": Field(
            _PARAMETERS, "Parameters shared by all entry points; an entry point may declare one anew.", nullable=True
        ),
        "entry_points": Field(MapOf(_ENTRY_POINT), "The commands, by name; `main` is run where none is named.", nullable=True),
        "databricks_spark_job": _SPARK,
    }
)

_ONLY_OURS = "only runproj.yaml knows this key"
_ML_PARAMETERS = MapOf(
    Either(
        (
            Text(),
            Record(
                {
                    "type": Field(Text(), "", nullable=True),
                    "default": Field(Anything(), ""),
                    "description": Field(Anything(), "", same_as="help"),
                    "help": Field(Anything(), ""),
                },
                dict.fromkeys(("min", "max", "choices", "required"), _ONLY_OURS),
            ),
        )
    ),
    nullable=True,
)
_ML_ENTRY_POINT = Record(
    {
        "command": Field(Text(any_scalar=True), "", nullable=True),
        "parameters": Field(_ML_PARAMETERS, "", nullable=True),
    },
    dict.fromkeys((name for name in _ENTRY_POINT.fields if name not in ("command", "parameters")), _ONLY_OURS),
)
MLPROJECT = Record(
    {
        "name": Field(Text(any_scalar=True), "", nullable=True),
        "python_env": Field(Text(), "", nullable=True),
        "conda_env": Field(Text(), "", nullable=True),
        "docker_env": Field(Either((_DOCKER, Text())), "", nullable=True),
        "entry_points": Field(MapOf(_ML_ENTRY_POINT, nullable=True), "", nullable=True),
        "databricks_spark_job": _SPARK,
    },
    dict.fromkeys(("environment", "env", "params", "runproj"), _ONLY_OURS),
)


def runproj_schema() -> Schema:
    """The schema of a whole `runproj.yaml`; an empty file is a project without entry points."""
    return nullable(RUNPROJ.schema())


__all__ = ["MLPROJECT", "RUNPROJ", "VERSION", "runproj_schema"]

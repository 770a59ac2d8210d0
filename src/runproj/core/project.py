"""The project: what a descriptor says, parsed and validated once."""

from __future__ import annotations

from dataclasses import field
from enum import Enum

from runproj.core.environment import EnvSpec
from runproj.core.record import Output
from runproj.core.values import dataclass


class ParameterType(Enum):
    """The types a parameter can have.  MLproject knows four of them; `runproj.yaml` knows all."""

    STRING = "string"
    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    PATH = "path"
    URI = "uri"
    CHOICE = "choice"
    LIST = "list"
    OBJECT = "object"
    SECRET = "secret"
    SEED = "seed"  # an int that decides the random numbers


@dataclass(frozen=True)
class Parameter:
    """A typed input of an entry point.  Values travel as text; the type says which texts are valid.

    default: text, or None where a value is required.
    declared_type: the word in the descriptor, where it is not one of ours ("int32"): such a parameter is a string.
    """

    name: str
    type: ParameterType = ParameterType.STRING
    default: str | None = None
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    help: str = ""
    declared_type: str = ""
    required: bool = True


@dataclass(frozen=True)
class Command:
    """A command template: either one shell string, or an argv list that no shell ever sees.  `{name}` is a parameter.

    extra: the words that an undeclared parameter becomes at the end of the command.
    """

    shell: str | None = None
    argv: tuple[str, ...] = ()
    extra: tuple[str, ...] = ("--{name}", "{value}")


@dataclass(frozen=True)
class InputSpec:
    """A declared input.  `uri` is a path relative to the project, or a URI; `sha256` is checked where given.

    step:  the entry point that puts it out, under the path `uri`, where it will be again.
    run:   in a plan, the run of that step whose output it is;  `files`: what that run left there.
    """

    name: str
    uri: str
    sha256: str | None = None
    step: str = ""
    run: str = ""
    files: tuple[Output, ...] = ()


@dataclass(frozen=True)
class MetricSpec:
    """Where metrics are found without any logging call.

    pattern: a regular expression over lines of standard output; with groups `name` and `value`, or one group and `name`.
    file:    a JSON or CSV file in the project's folder, read when the command has ended.
    """

    name: str | None = None
    pattern: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class Expectation:
    """What a metric should come out as; used by comparisons."""

    metric: str
    value: float
    rtol: float | None = None
    atol: float | None = None


@dataclass(frozen=True)
class Resources:
    """What the entry point needs; backends translate it.  Texts as the user wrote them ("4GB", "2h")."""

    cpus: float | None = None
    memory: str | None = None
    gpus: int | None = None
    time: str | None = None
    nodes: int | None = None
    partition: str | None = None


@dataclass(frozen=True)
class EntryPoint:
    """A command of the project with its parameters and what to record of it.

    open: parameters that are not declared are passed on as `--name value` (MLproject), instead of being errors.
    timeout: seconds.
    needs:   entry points that have to be done before, those whose outputs are its inputs among them.
    backend: where it runs unless the user says otherwise; empty for this machine.
    code:    files of the project that decide its result, as patterns; empty for all of them.
    """

    name: str
    command: Command
    parameters: tuple[Parameter, ...] = ()
    open: bool = True
    env: tuple[tuple[str, str], ...] = ()
    inputs: tuple[InputSpec, ...] = ()
    outputs: tuple[str, ...] = ()
    metrics: tuple[MetricSpec, ...] = ()
    expect: tuple[Expectation, ...] = ()
    resources: Resources = field(default_factory=Resources)
    timeout: float | None = None
    needs: tuple[str, ...] = ()
    backend: str = ""
    code: tuple[str, ...] = ()


@dataclass(frozen=True)
class SweepWishes:
    """How to search, where somebody said so: on the command line, or under `sweep:` of an entry point.  `max_time` in seconds."""

    method: str | None = None
    metric: str | None = None
    goal: str | None = None
    trials: int | None = None
    parallel: int | None = None
    seed: int | None = None
    prune: str | None = None
    max_time: float | None = None
    max_failures: int | None = None
    space: tuple[tuple[str, str | tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class Project:
    """A descriptor, parsed.  `descriptor` is its file name, or None for a bare repository.

    sweeps: how entry points are to be searched, by name.
    """

    name: str
    entry_points: tuple[EntryPoint, ...]
    environment: EnvSpec
    descriptor: str | None = None
    notes: tuple[str, ...] = ()
    sweeps: tuple[tuple[str, SweepWishes], ...] = ()

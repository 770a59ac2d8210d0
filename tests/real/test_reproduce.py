"""Something is changed between a run and its replay: `reproduce` has to give the right level, and `why` to name what it was.

What a replay pins must not change its result at all (R4), what it cannot pin must show as the level that is left, and what it
cannot restore must end it (FAILED).
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from conftest import Repository
from runproj.core.environment import EnvManager, LockOptions
from runproj.core.plan import RunOptions
from runproj.core.run import Lifecycle, Run, RunChanges, RunStatus
from runproj.core.verdict import Level
from runproj.files import remove_tree
from runproj.machine import THREAD_VARIABLES
from runproj.reproduce.bisect import Laboratory
from runproj.reproduce.replay import Wishes
from runproj.reproduce.why import explain
from support.docker import Docker
from support.package_index import PackageIndex, wheel
from support.wired import Wired

SCRIPT = """
import json, os, random, sys
from helpers import width
env, state = os.environ, json.load(open(sys.argv[5]))
if "CRASH" in env or "crash" in state:
    sys.exit("crashed")
lr, name, seed, depth = float(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
data = open(env["RUNPROJ_INPUT_DATA"], "rb").read() + open("table.csv", "rb").read()
numbers = random.Random(seed)
score = 100 + lr + depth + width + sum(data) / 10 + numbers.random() * 10 + len(name)
score += int(env.get("OMP_NUM_THREADS", 1)) / 1000 + float(env.get("NUDGE", 0)) + state.get("nudge", 0)
letters = {"alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"}
order = sorted(letters, reverse="ORDER" in env or "order" in state) if env.get("PYTHONHASHSEED") == "0" else list(letters)
json.dump(dict.fromkeys(order, round(seed + depth)), open("out.json", "w"))
open("note.txt", "w").write(env.get("NOTE", "") + state.get("note", "") + env.get("TZ", "") + env.get("SET", ""))
json.dump({"score": score}, open("metrics.json", "w"))
"""
DESCRIPTOR = """
entry_points:
  main:
    parameters:
      labels: path
      lr: {type: float, default: 0.1}
      name: {type: string, default: x}
      seed: {type: seed, default: 1}
      depth: {type: int, default: 3}
      state: string
    env: {SET: "1"}
    inputs: {data: {uri: "file://DATA"}, table: table.csv}
    outputs: [out.json, note.txt]
    metrics: [{file: metrics.json}]
    command: [python, train.py, "{lr}", "{name}", "{seed}", "{depth}", "{state}", "{labels}"]
"""
FILES = {"train.py": SCRIPT, "helpers.py": "width = 7\n", "table.csv": "1,2,3\n", "README.md": "read me\n"}


@dataclass
class World:
    """The surroundings of a run, which a perturbation changes, and what it then asks for."""

    repository: Repository
    data: Path
    state: Path
    patch: pytest.MonkeyPatch
    interpreters: tuple[Path, Path]
    rng: random.Random
    uri: str = ""
    params: dict[str, str] = field(default_factory=dict)
    options: RunOptions = field(default_factory=RunOptions)

    def commit(self, **files: str) -> None:
        names = {name.replace("__", "."): text for name, text in files.items()}
        self.repository.commit(names)

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.repository.path / name).read_text()
        assert old in text
        self.repository.commit({name: text.replace(old, new)})

    def set(self, name: str, value: str) -> None:
        self.patch.setenv(name, value)

    def param(self, name: str, value: object) -> None:
        self.params[name] = str(value)

    def undeclared(self, text: str) -> None:
        self.state.write_text(text)

    def use_interpreter(self, number: int) -> None:
        path = os.environ["PATH"].split(os.pathsep, 1)[1]
        self.set("PATH", f"{self.interpreters[number].parent}{os.pathsep}{path}")


Change = Callable[[World], object]


@dataclass(frozen=True)
class Perturbation:
    """level: of a replay of the run before;  `kind` and `name`: of the factor; None where nothing that is recorded differs.

    other: whether another run is made, to ask why it differs.
    """

    label: str
    change: Change
    level: Level
    kind: str | None = None
    name: str | None = None
    other: bool = True


def perturbations() -> Iterator[Perturbation]:
    """Made anew from one seed: values are random, and the same each time."""
    rng = random.Random(20240229)
    for name, values in (
        ("lr", [rng.random(), -rng.random(), 1e-9]),
        ("name", ["it's", "Größe", "a b"]),
        ("depth", [rng.randrange(4, 99), -rng.randrange(1, 9)]),
    ):
        for value in values:
            yield Perturbation(f"{name}={value}", _parameter(name, value), Level.R4, "parameter", name)
    for value in (rng.randrange(2, 2**31), 0, -5):
        yield Perturbation(f"seed={value}", _parameter("seed", value), Level.R4, "seed", "seed")
    yield from _of_code()
    yield from _of_descriptor()
    yield from _of_inputs(rng)
    yield from _of_variables()
    yield from _of_surroundings()
    yield from _of_what_is_not_recorded()


def _parameter(name: str, value: object) -> Change:
    return lambda world: world.param(name, value)


def _of_code() -> Iterator[Perturbation]:
    r4, code = Level.R4, "code"
    yield Perturbation("a line", lambda w: w.edit("train.py", "100 +", "101 +"), r4, code, "train.py")
    yield Perturbation("a comment", lambda w: w.edit("train.py", "\nenv,", "\n# more\nenv,"), r4, code, "train.py")
    yield Perturbation("a helper", lambda w: w.edit("helpers.py", "7", "8"), r4, code, "helpers.py")
    yield Perturbation("a new file", lambda w: w.repository.commit({"extra/more.py": "x = 1\n"}), r4, code, "extra/more.py")
    yield Perturbation("a removed file", lambda w: w.repository.git("rm", "-q", "README.md", "-f"), r4, code, "README.md")
    yield Perturbation("a mode", lambda w: (w.repository.path / "train.py").chmod(0o755), r4, code, "train.py")
    yield Perturbation("not committed", lambda w: w.repository.write({"helpers.py": "width = 9\n"}), r4, code, "helpers.py")
    yield Perturbation("not tracked", lambda w: w.repository.write({"new.txt": "x"}), r4, code, "new.txt")
    yield Perturbation("another message", lambda w: w.repository.git("commit", "-q", "--amend", "-m", "other"), r4)


def _of_descriptor() -> Iterator[Perturbation]:
    r4, descriptor, file = Level.R4, "descriptor", "runproj.yaml"
    yield Perturbation("a default", lambda w: w.edit(file, "default: 3", "default: 4"), r4, descriptor, "default of depth")
    yield Perturbation("a variable", lambda w: w.edit(file, 'SET: "1"', 'SET: "2"'), r4, descriptor, "env SET")
    yield Perturbation("the command", lambda w: w.edit(file, "[python, train", "[python, -B, train"), r4, descriptor, "command")
    yield Perturbation("outputs", lambda w: w.edit(file, "[out.json, note.txt]", "[out.json]"), r4, descriptor, "outputs")
    yield Perturbation("a remark", lambda w: w.edit(file, "\nentry", "\n# remark\nentry"), r4, descriptor, file)
    yield Perturbation(
        "metrics", lambda w: w.edit(file, "{file: metrics.json}", "{file: metrics.json, name: score}"), r4, descriptor, "metric 1"
    )


def _of_inputs(rng: random.Random) -> Iterator[Perturbation]:
    failed = Level.FAILED
    for _ in range(3):
        place, bit = rng.randrange(64), 1 << rng.randrange(8)
        yield Perturbation(f"bit {bit} of byte {place}", _flip(place, bit), failed, "input", "data")
    yield Perturbation("more data", lambda w: w.data.write_bytes(w.data.read_bytes() + b"x"), failed, "input", "data")
    yield Perturbation("no data", lambda w: w.data.unlink(), failed, other=False)
    yield Perturbation("labels", lambda w: Path(w.params["labels"]).write_text("a c\n"), failed, "input", "labels")
    yield Perturbation("the same data anew", lambda w: w.data.write_bytes(w.data.read_bytes()), Level.R4)
    yield Perturbation("data in git", lambda w: w.edit("table.csv", "1,2,3", "1,2,4"), Level.R4, "input", "table")


def _flip(place: int, bit: int) -> Change:
    def change(world: World) -> None:
        content = bytearray(world.data.read_bytes())
        content[place] ^= bit
        world.data.write_bytes(bytes(content))

    return change


def _of_variables() -> Iterator[Perturbation]:
    for name, value, level in (
        ("ORDER", "1", Level.R3),
        ("NOTE", "new", Level.R2),
        ("NUDGE", "0.25", Level.R1),
        ("NUDGE", "-0.5", Level.R1),
        ("NUDGE", "50", Level.R0),
        ("NUDGE", "nan", Level.R0),
        ("HARMLESS", "1", Level.R4),
        ("LANG", "de_DE.UTF-8", Level.R4),
        ("LC_NUMERIC", "C", Level.R4),
        ("TZ", "Asia/Tokyo", Level.R2),
    ):
        yield Perturbation(f"{name}={value}", _variable(name, value), level, "variable", name)
    yield Perturbation("CRASH=1", _variable("CRASH", "1"), Level.FAILED, other=False)
    yield Perturbation("an unset variable", lambda w: w.patch.delenv("USUAL"), Level.R4, "variable", "USUAL")


def _variable(name: str, value: str) -> Change:
    return lambda world: world.set(name, value)


def _of_surroundings() -> Iterator[Perturbation]:
    yield Perturbation("threads", _variable("OMP_NUM_THREADS", "5"), Level.R1, "threads", "OMP_NUM_THREADS")
    yield Perturbation("no thread count", lambda w: w.patch.delenv("OMP_NUM_THREADS"), Level.R1, "threads", "OMP_NUM_THREADS")
    yield Perturbation("threads unused", _variable("MKL_NUM_THREADS", "5"), Level.R4, "threads", "MKL_NUM_THREADS")
    yield Perturbation("kernels", _variable("OPENBLAS_CORETYPE", "Haswell"), Level.R4, "threads", "OPENBLAS_CORETYPE")
    for seed in ("1", "2"):
        yield Perturbation(f"hash seed {seed}", _variable("PYTHONHASHSEED", seed), Level.R3, "seed", "PYTHONHASHSEED")
    yield Perturbation("interpreter", lambda w: w.use_interpreter(1), Level.R4, "interpreter", "path")
    yield Perturbation(
        "interpreter gone", lambda w: w.interpreters[0].rename(f"{w.interpreters[0]}.gone"), Level.FAILED, other=False
    )
    yield Perturbation("deterministic", _options(deterministic=True), Level.R4, "variable", "--deterministic")
    yield Perturbation("clean", _options(clean_env=True), Level.R4, "variable", "--clean-env")
    yield Perturbation("a name", _options(run_name="other"), Level.R4)
    yield Perturbation("a tag and an experiment", _options(tags=(("a", "b"),), experiment="second"), Level.R4)


def _options(**changes: Any) -> Change:  # fields of RunOptions
    def change(world: World) -> None:
        world.options = replace(world.options, **changes)

    return change


def _of_what_is_not_recorded() -> Iterator[Perturbation]:
    """Through a file that nothing declares: randomness, clocks and undeclared inputs look like that."""
    for text, level in (
        ('{"order": 1}', Level.R3),
        ('{"note": "12:00"}', Level.R2),
        ('{"nudge": 0.001}', Level.R1),
        ('{"nudge": -20}', Level.R0),
        ('{"unused": 1}', Level.R4),
    ):
        yield Perturbation(f"undeclared {text}", _undeclared(text), level)
    yield Perturbation("undeclared, and it fails", _undeclared('{"crash": 1}'), Level.FAILED, other=False)


def _undeclared(text: str) -> Change:
    return lambda world: world.undeclared(text)


class Scene:
    """A run, and the world it was made in, which is set up again for each perturbation."""

    def __init__(self, folder: Path) -> None:
        self.repository = Repository(folder / "it's a project")
        self.data, self.state, self.labels = folder / "data.bin", folder / "state.json", folder / "labels.txt"
        self.content = bytes(range(64))
        self.repository.commit({"runproj.yaml": DESCRIPTOR.replace("DATA", str(self.data)), **FILES})
        self.head = self.repository.head
        self.interpreters = tuple(self._interpreter(folder / name) for name in ("one", "other"))
        self.wired = Wired()
        with pytest.MonkeyPatch.context() as patch:
            self.first = self.run(self.world(patch))
        assert self.first.status is RunStatus.FINISHED

    @staticmethod
    def _interpreter(folder: Path) -> Path:
        """An interpreter in a place of its own."""
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        return folder / "bin" / "python"

    def world(self, patch: pytest.MonkeyPatch) -> World:
        for path in self.interpreters:
            if not path.exists() and Path(f"{path}.gone").exists():
                Path(f"{path}.gone").rename(path)
        self.repository.git("reset", "-q", "--hard", self.head)
        self.repository.git("clean", "-q", "-fdx")
        self.data.write_bytes(self.content)
        self.state.write_text("{}")
        self.labels.write_text("a b\n")
        for name in THREAD_VARIABLES:
            patch.delenv(name, raising=False)
        for name, value in (("OMP_NUM_THREADS", "2"), ("PYTHONHASHSEED", "0"), ("USUAL", "1"), ("TZ", "UTC")):
            patch.setenv(name, value)
        path = os.environ["PATH"]
        patch.setenv("PATH", f"{self.interpreters[0].parent}{os.pathsep}{path}")
        return World(
            self.repository,
            self.data,
            self.state,
            patch,
            self.interpreters,
            random.Random(1),
            uri=str(self.repository.path),
            params={"state": str(self.state), "labels": str(self.labels)},
        )

    def run(self, world: World) -> Run:
        return self.wired.run(world.uri, world.params, options=world.options)

    def try_out(self, perturbation: Perturbation) -> str:
        """What is wrong with the answers in the perturbed world; empty where nothing is."""
        with pytest.MonkeyPatch.context() as patch:
            world = self.world(patch)
            perturbation.change(world)
            verdict = self.wired.reproduce(self.first)
            wrong = "" if verdict.level is perturbation.level else f"level {verdict.level.value} ({verdict.replays[0].reason}) "
            if perturbation.name and verdict.level not in (Level.R4, Level.FAILED):
                wrong += "" if any(perturbation.name in words for words in verdict.suspects) else f"suspects {verdict.suspects} "
            if not perturbation.other:
                return wrong
            second = self.run(world)
            wiring = self.wired.wiring
            found, _ = explain(self.first, second, wiring.services())
            wiring.tracking.update(second.id, RunChanges(lifecycle=Lifecycle.DELETED))  # or its noise would be learnt from
            named = (found.first.kind, found.first.name) if found.first else (None, None)
            return wrong if named == (perturbation.kind, perturbation.name) else f"{wrong}why: {found.words}"


def report(wrong: dict[str, str], number: int) -> None:
    """98 of 100 answers have to be right, and it is said which are not."""
    failed = {label: text for label, text in wrong.items() if text}
    assert len(failed) <= number * 0.02, "\n".join(f"{label}: {text}" for label, text in failed.items())


def test_levels_and_reasons_of_perturbed_runs(isolated: Path, tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    every = list(perturbations())
    assert len(every) >= 60
    report({item.label: scene.try_out(item) for item in every}, len(every))


# -- environments that are built


PACKAGES = {
    "runproj.yaml": (
        f'environment: {{python: "{sys.version_info.major}.{sys.version_info.minor}", requirements: requirements.txt}}\n'
        "entry_points:\n  main:\n    command: [python, main.py]\n    metrics: [{file: m.json}]\n    outputs: [m.json]\n"
    ),
    "main.py": "import json, small, plain\njson.dump({'v': small.V, 'w': plain.V}, open('m.json', 'w'))\n",
    "requirements.txt": "small==1.0\nplain==1.0\n",
}


class Packages:
    """A project that needs two packages, and the index that has them; each perturbation may change either."""

    def __init__(self, folder: Path, index: PackageIndex) -> None:
        self.index = index
        self.repository = Repository(folder / "project")
        self.repository.commit(PACKAGES)
        self.wired = Wired()
        self.options = LockOptions(as_of="now")
        self.publish("small", "1.0", "V = 1")
        self.publish("small", "2.0", "V = 2")
        self.publish("plain", "1.0", "V = 1")
        self.publish("extra", "0.1", "V = 1")

    def publish(self, name: str, version: str, text: str) -> None:
        self.index.add(wheel(name, version, {f"{name}.py": text + "\n"}))

    def need(self, text: str) -> None:
        self.repository.commit({"requirements.txt": text})

    def run(self, **options: Any) -> Run:  # fields of LockOptions
        lock = replace(self.options, **options)
        manager = options.get("manager")
        return self.wired.run(self.repository.path, lock=lock, manager=manager or EnvManager.VIRTUALENV)

    def why(self, first: Run, second: Run) -> str:
        found, _ = explain(first, second, self.wired.wiring.services())
        return found.words

    def environment(self, run: Run) -> Path:
        """Where its packages are."""
        plan = self.wired.view(run).plan
        assert plan
        folder = Path(self.wired.wiring.settings.home) / "envs" / plan.lock.digest[:32]
        return next(folder.glob("env/lib/python3*/site-packages"))


@pytest.fixture
def packages(isolated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Packages]:
    index = PackageIndex()
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
    yield Packages(tmp_path, index)
    index.close()


def test_locks_and_wheels(packages: Packages) -> None:
    """Versions, contents of the same version, additions and removals: `why` names the package, and replays are not touched."""
    first = packages.run()
    wrong: dict[str, str] = {}

    def expect(label: str, second: Run, words: str) -> None:
        found = packages.why(first, second)
        level = packages.wired.reproduce(first).level
        wrong[label] = "" if (found.startswith(words), level) == (True, Level.R4) else f"{level.value} {found}"

    packages.need("small==2.0\nplain==1.0\n")
    expect("version", packages.run(), "lock: small 1.0 → 2.0")
    packages.need("small==1.0\nplain==1.0\nextra\n")
    expect("added", packages.run(), "lock: extra 0.1 added")
    packages.need("small==1.0\nplain==1.0\n")
    expect("with", packages.run(extra=("extra==0.1",)), "lock: extra 0.1 added")
    packages.need("small==1.0  # remark\nplain==1.0\n")
    expect("a remark", packages.run(), "code: requirements.txt changed")
    packages.need("small==1.0\nplain==1.0\n")
    packages.publish("plain", "1.0", "V = 1  # rebuilt")
    expect("other wheel", packages.run(relock=True), "lock: plain 1.0: other content")
    report(wrong, 5)


def test_an_environment_is_checked_before_a_replay_and_never_replaced_by_another(packages: Packages) -> None:
    run = packages.run()
    site = packages.environment(run)
    module = site / "small.py"
    module.unlink()
    module.write_text("V = 666\n")
    verdict = packages.wired.reproduce(run)
    assert verdict.level is Level.R4, verdict
    assert ["damaged" in note for note in verdict.notes] == [True]
    before = (site / "small.py").stat()
    time.sleep(0.02)  # until the clock of the file system has moved on
    (site / "small.py").write_text("V = 2\n")
    os.utime(site / "small.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    verdict = packages.wired.reproduce(run)
    assert (verdict.level, len(verdict.notes)) == (Level.R4, 1), "noticed though size and time are the same"
    built = site.stat().st_ctime_ns
    assert packages.wired.reproduce(run).level is Level.R4
    assert packages.environment(run).stat().st_ctime_ns == built, "a sound environment is used as it is"
    assert packages.wired.reproduce(run, Wishes(rebuild=True)).level is Level.R4
    assert packages.environment(run).stat().st_ctime_ns != built
    packages.publish("small", "1.0", "V = 2")
    for folder in ("envs", "cache/uv"):
        remove_tree(Path(packages.wired.wiring.settings.home) / folder)
    (replay,) = packages.wired.reproduce(run).replays
    assert (replay.level, "cannot be built" in replay.reason) == (Level.FAILED, True), replay.reason


def test_a_tag_that_moved_and_an_image_that_is_gone(isolated: Path, repository: Repository, engine: Docker) -> None:
    """A replay starts what the tag meant then; a new run takes what it means now, and `why` names the image."""
    first_image, other_image = engine.image("ENV EFFECT=1"), engine.image("ENV EFFECT=2")
    tag = first_image.rpartition(":")[0] + ":moving"
    engine.client.images.get(first_image).tag(tag)
    repository.commit(
        {
            "runproj.yaml": f"environment: {{docker: {{image: '{tag}'}}}}\n"
            "entry_points:\n  main:\n    command: [python3, -c, \"import os; print('v =', os.environ['EFFECT'])\"]\n"
            "    metrics: [{name: v, pattern: 'v = (.*)'}]\n"
        }
    )
    wired = Wired()
    run = wired.run(repository.path, manager=EnvManager.DOCKER)
    engine.client.images.get(other_image).tag(tag)
    assert wired.reproduce(run).level is Level.R2
    wired = Wired()  # as a later command: each asks the engine once what a tag means
    moved = wired.run(repository.path, manager=EnvManager.DOCKER)
    found, pair = explain(run, moved, wired.wiring.services())
    assert found.first and (found.first.kind, found.first.name) == ("image", "reference")
    cause = Laboratory(pair, wired.wiring.services(), wired.wiring.leases).bisect(found.factors)
    assert cause.cause and cause.cause[0].startswith("image reference:"), cause
    engine.client.images.remove(first_image, force=True)
    engine.made.remove(first_image)
    (replay,) = Wired().reproduce(run).replays
    assert replay.level is Level.FAILED, replay
    engine.client.images.remove(tag, force=True)

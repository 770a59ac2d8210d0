"""The measurements: each returns rows of a table, ratios against a peer or a floor taken in the same run."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import peers
from measure import CommandFailed, Result, once, peak_beside_command, several


@dataclass(frozen=True)
class Row:
    """A line of the table.  `good` is None for a row that informs without a target."""

    case: str
    what: str
    value: str
    target: str = ""
    good: bool | None = None


@dataclass(frozen=True)
class Bench:
    """What every measurement needs."""

    work: Path
    runproj: str
    times: int
    log_bytes: int
    with_peers: bool

    @property
    def environ(self) -> dict[str, str]:
        return peers.plain_environment() | {"RUNPROJ_HOME": str(self.work / "home")}

    def folder(self, name: str) -> Path:
        path = self.work / name
        path.mkdir(parents=True, exist_ok=True)
        return path


def at_most(case: str, what: str, value: float, limit: float, unit: str = "s CPU", shown: str = "") -> Row:
    return Row(case, what, shown or f"{value:.3f} {unit}", f"<= {limit:g} {unit}", value <= limit)


def ratio(case: str, what: str, ours: float, theirs: float, share: int) -> Row:
    return Row(case, what, f"1/{theirs / ours:.1f}", f"<= 1/{share}", ours <= theirs / share)


def make_project(bench: Bench, name: str, files: Mapping[str, str]) -> str:
    """A git repository of these files; returns its URL."""
    folder = bench.folder(f"projects/{name}")
    if not (folder / ".git").exists():
        for file, text in files.items():
            (folder / file).write_text(text)
        identity = ["-c", "user.name=Benchmark", "-c", "user.email=benchmark@example.org"]
        for words in (["init", "-q", "-b", "main"], ["add", "-A"], [*identity, "commit", "-q", "-m", "project"]):
            subprocess.run(["git", *words], cwd=folder, check=True)
    return f"file://{folder}"


def numpy_project(bench: Bench) -> str:
    environment = f'python: "{platform.python_version()}"\ndependencies:\n  - numpy\n'
    entry = 'name: noop\npython_env: python_env.yaml\nentry_points:\n  main:\n    command: "python -S -c pass"\n'
    return make_project(bench, "noop", {"MLproject": entry, "python_env.yaml": environment})


def version(bench: Bench) -> list[Row]:
    """`--version`: what starting costs."""
    ours = several([bench.runproj, "--version"], bench.environ, bench.work, bench.times)
    floor = several([os.path.realpath(sys.executable), "-c", "pass"], bench.environ, bench.work, bench.times)
    rows = [
        at_most("version", "runproj --version", ours.cpu, 0.10, shown=f"{ours.shown()} s CPU"),
        Row("version", "floor: python -c pass", f"{floor.shown()} s CPU"),
    ]
    if bench.with_peers:
        theirs = mlflow_times(bench, ["--version"])
        rows.append(Row("version", "peer: mlflow --version", f"{theirs.shown()} s CPU"))
    return rows


def mlflow_times(
    bench: Bench, arguments: Sequence[str], before_each: Callable[[Path], None] | None = None, times: int | None = None
) -> Result:
    peer = peers.mlflow()
    work = bench.folder("mlflow")
    (work / "tmp").mkdir(exist_ok=True)
    prepare = (lambda: before_each(work)) if before_each else None
    return several([peer.program, *arguments], peer.environ(work), work, times or bench.times, before_each=prepare)


def warm(bench: Bench) -> list[Row]:
    """A project from a git URL that does nothing, its environment already there."""
    url = numpy_project(bench)
    ours = several([bench.runproj, "run", url], bench.environ, bench.work, bench.times)
    rows = [
        at_most("warm", "runproj run URL", ours.cpu, 0.45, shown=f"{ours.shown()} s CPU, {ours.wall:.2f} s wall"),
        at_most("warm", "runproj: largest process", ours.memory / 1e6, 80, "MB"),
    ]
    if bench.with_peers:
        for manager in managers():
            theirs = mlflow_times(bench, ["run", url, "--env-manager", manager])
            text = f"{theirs.shown()} s CPU, {theirs.wall:.2f} s wall"
            rows.append(Row("warm", f"peer: mlflow run --env-manager {manager}", text))
            rows.append(ratio("warm", f"ratio to {manager}", ours.cpu, theirs.cpu, 8))
    return rows


def managers() -> list[str]:
    """MLflow's managers that work here: virtualenv needs pyenv and this exact interpreter in it."""
    version_file = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions" / platform.python_version()
    return ["virtualenv", "uv"] if shutil.which("pyenv") and version_file.exists() else ["uv"]


def cold(bench: Bench) -> list[Row]:
    """The same project when its environment must be built; packages are in the cache already."""
    url = numpy_project(bench)
    home = Path(bench.environ["RUNPROJ_HOME"])
    argv = [bench.runproj, "run", "--relock", url]
    once(argv, bench.environ, bench.work)  # fills the package cache
    ours = several(argv, bench.environ, bench.work, bench.times, before_each=lambda: forget_environments(home))
    known = several([*argv[:2], url], bench.environ, bench.work, bench.times, before_each=lambda: forget_environments(home))
    hot = several([bench.runproj, "run", url], bench.environ, bench.work, bench.times)
    floor = install_floor(bench, url)
    beyond = known.cpu - floor.cpu
    rows = [
        Row("cold", "runproj run, resolving", f"{ours.shown()} s CPU, {ours.wall:.2f} s wall"),
        Row("cold", "runproj run, lock known", f"{known.shown()} s CPU, {known.wall:.2f} s wall"),
        Row("cold", "runproj run, all known", f"{hot.shown()} s CPU, {hot.wall:.2f} s wall"),
        Row("cold", "floor: virtualenv + uv pip install", f"{floor.shown()} s CPU, {floor.wall:.2f} s wall"),
        at_most("cold", "runproj beyond the floor", beyond, 0.5),
    ]
    if bench.with_peers:
        present = managers()
        for manager, share in (("uv", 5), ("virtualenv", 10)):
            if manager not in present:
                rows.append(Row("cold", f"peer: --env-manager {manager}", "left out: pyenv with this interpreter is needed"))
                continue
            times = bench.times if manager == "uv" else min(bench.times, 5)
            theirs = mlflow_times(bench, ["run", url, "--env-manager", manager], forget_mlflow_environments, times)
            rows.append(Row("cold", f"peer: mlflow --env-manager {manager}", f"{theirs.shown()} s CPU, {theirs.wall:.2f} s wall"))
            rows.append(ratio("cold", f"ratio to {manager}", ours.cpu, theirs.cpu, share))
    return rows


def forget_environments(home: Path) -> None:
    """Remove every environment of a home that only this benchmark uses; the package cache stays."""
    shutil.rmtree(home / "envs", ignore_errors=True)


def forget_mlflow_environments(work: Path) -> None:
    shutil.rmtree(work / "envs", ignore_errors=True)


def install_floor(bench: Bench, url: str) -> Result:
    """The two programs that do the work, called by hand on the lock that runproj recorded."""
    planned = subprocess.run(
        [bench.runproj, "plan", "--json", url], env=bench.environ, cwd=bench.work, check=True, capture_output=True
    )
    lock = bench.folder("floor") / "pylock.toml"
    lock.write_text(json.loads(planned.stdout)["lock"]["pylock"])
    target = lock.parent / "env"
    script = (
        f'"{Path(bench.runproj).with_name("virtualenv")}" -q --no-seed -p "{os.path.realpath(sys.executable)}" "{target}" && '
        f'"{Path(bench.runproj).with_name("uv")}" pip install -q --offline -p "{target}" -r "{lock}"'
    )
    environ = bench.environ | uv_cache(bench)
    return several(
        ["bash", "-c", script],
        environ,
        bench.work,
        bench.times,
        before_each=lambda: shutil.rmtree(target, ignore_errors=True),
    )


def uv_cache(bench: Bench) -> dict[str, str]:
    """Use the package cache that runproj filled, if it keeps one of its own."""
    found = [path.parent for path in (bench.work / "home").glob("*/*/CACHEDIR.TAG")]
    found += [path.parent for path in (bench.work / "home").glob("*/CACHEDIR.TAG")]
    return {"UV_CACHE_DIR": str(found[0])} if found else {}


def memory(bench: Bench) -> list[Row]:
    """What the runner holds while a command runs."""
    entry = 'name: sleeper\nentry_points:\n  main:\n    command: "sleep 2"\n'
    url = make_project(bench, "sleeper", {"MLproject": entry})
    argv = [bench.runproj, "run", "--quiet", "--env-manager", "system", url]
    peak = max(peak_beside_command(argv, bench.environ, bench.work) for _ in range(3))
    return [at_most("memory", "runner and guard beside the child", peak / 1e6, 80, "MB")]


def logs(bench: Bench) -> list[Row]:
    """A command that prints a lot: how fast it passes, what the runner holds, and that every byte is stored."""
    line = "0123456789 abcdefghijklmnopqrstuvwxyz 0123456789 ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789\\n"
    block = f"import sys\nblock = b'{line}' * 12000\nleft = int(sys.argv[1])\n"
    loop = "while left > 0:\n    left -= sys.stdout.buffer.write(block[:left])\n"
    entry = 'name: printer\nentry_points:\n  main:\n    parameters: {bytes: int}\n    command: "python3 print.py {bytes}"\n'
    url = make_project(bench, "printer", {"MLproject": entry, "print.py": block + loop})
    printer = bench.work / "projects" / "printer" / "print.py"
    size = bench.log_bytes
    target = bench.work / "floor.log"
    script = f'"{sys.executable}" "{printer}" {size} | cat > "{target}"'
    floor = once(["bash", "-c", script], bench.environ, bench.work)
    target.unlink()
    begin = time.monotonic()
    argv = [bench.runproj, "run", "--json", "--env-manager", "system", "-P", f"bytes={size}", url]
    environ = bench.environ | {"PATH": f"{Path(sys.executable).parent}:{bench.environ['PATH']}"}
    ours = once(argv, environ, bench.work)
    took = time.monotonic() - begin
    stored = [path for path in (bench.work / "home").rglob("stdout.log") if path.stat().st_size == size]
    for path in stored:
        path.unlink()
    speed = size / took / 1e6
    return [
        Row("logs", f"runproj, {size / 1e9:g} GB", f"{speed:.0f} MB/s, {ours.cpu:.1f} s CPU", ">= 100 MB/s", speed >= 100),
        Row("logs", "floor: | cat > file", f"{size / floor.wall / 1e6:.0f} MB/s, {floor.cpu:.1f} s CPU"),
        at_most("logs", "largest process", ours.memory / 1e6, 120, "MB"),
        Row("logs", "bytes stored", f"{size if stored else 'not all of them'}", f"{size}", bool(stored)),
    ]


def listing(bench: Bench) -> list[Row]:
    """`runs list` over a store of 1,000 runs."""
    home = bench.folder("thousand")
    environ = bench.environ | {"RUNPROJ_HOME": str(home)}
    filler = Path(__file__).with_name("fill.py")
    once([Path(bench.runproj).with_name("python"), filler, "1000"], environ, bench.work)
    rows = []
    for extra in ([], ["--limit", "1000"], ["--limit", "1000", "--json"]):
        argv = [bench.runproj, "runs", "list", *extra]
        taken = several(argv, environ, bench.work, bench.times)
        shown = f"{taken.shown()} s CPU, {taken.wall:.2f} s wall"
        rows.append(at_most("list", " ".join(["runs list", *extra]), taken.cpu, 0.3, shown=shown))
    return rows


CASES: dict[str, Callable[[Bench], list[Row]]] = {
    "version": version,
    "warm": warm,
    "cold": cold,
    "memory": memory,
    "logs": logs,
    "list": listing,
}

__all__ = ["CASES", "Bench", "CommandFailed", "Row"]

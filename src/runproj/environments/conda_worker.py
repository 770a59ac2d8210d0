"""Asks rattler, conda's solver and installer as a library, to do one thing, and ends.

Run as a script by `conda_child.py`: rattler is heavy, and a failure in it can take its whole process with it.  Standard input is
one JSON object, whose `do` names a function below; standard output is another, with `error` where it failed.  Lines on standard
error that begin with a tab say what is going on.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rattler import Channel, Gateway, MatchSpec, PackageName, RepoDataRecord, Subdir
    from rattler.networking import Client

Request = dict[str, Any]  # JSON has no narrower type
_DOWNLOADS = 8
_BLOCK = 1 << 20


class Failed(Exception):
    """What was asked for cannot be done.  `kind`: "solve", "channel", "spec", "hash", "offline", "install"."""

    def __init__(self, kind: str, said: str) -> None:
        super().__init__(said)
        self.kind = kind


def tell(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"\t{text}\n")
        sys.stderr.flush()


# -- reach: whether channels answer


def reach(request: Request) -> Request:
    """`urls`, `timeout` in seconds → `problems`: of each URL that does not answer, why."""
    said: dict[str, str] = {}

    def ask(url: str) -> None:
        said[url] = _silence(url, request["subdir"], request["timeout"])

    threads = [threading.Thread(target=ask, args=(url,), daemon=True) for url in request["urls"]]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + request["timeout"]
    for thread in threads:  # names are looked up without a time-out of their own
        thread.join(max(0.0, deadline - time.monotonic()))
    answers = {url: said.get(url, f"no answer within {request['timeout']:g} seconds") for url in request["urls"]}
    return {"problems": {url: why for url, why in answers.items() if why}}


def _silence(url: str, subdir: str, timeout: float) -> str:
    """Why a channel cannot be read; empty where it can."""
    if url.startswith("file:"):
        return (
            "" if any(_local(f"{url}/{folder}/repodata.json").exists() for folder in ("noarch", subdir)) else "no channel there"
        )
    if not url.startswith(("http:", "https:")):
        return ""  # only the library knows how to ask
    why = ""
    for folder in ("noarch", subdir):
        try:
            with urllib.request.urlopen(urllib.request.Request(f"{url}/{folder}/repodata.json", method="HEAD"), timeout=timeout):
                return ""
        except urllib.error.HTTPError as error:
            if error.code in (401, 403, 405, 407):
                return ""  # it is there; credentials are not ours to know
            why = f"HTTP {error.code}"
        except (OSError, ValueError) as error:
            return str(getattr(error, "reason", None) or error)
    return why


def _local(url: str) -> Path:
    return Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path))


# -- solve: packages that fit together


async def solve(request: Request) -> Request:
    """`specs`, `channels` (URLs), `subdir`, `exclude_newer` (ISO time or null), `cache`, `offline` → `records`."""
    import rattler
    from rattler.exceptions import GatewayError, SolverError

    tell("reading the channels")
    specs = [match_spec(text) for text in request["specs"]]
    action: Any = "force-cache-only" if request["offline"] else "cache-or-fetch"
    gateway = rattler.Gateway(
        Path(request["cache"], "repodata"),
        default_config=rattler.SourceConfig(cache_action=action),
        client=client(),
    )
    subdirs = [rattler.Subdir(request["subdir"]), rattler.Subdir("noarch")]
    dated = request["exclude_newer"]
    folders = {channel for channel in request["channels"] if channel.startswith("file:")}
    by_build = [folders, set(request["channels"])] if dated else [set()]

    async def source(channel: str, built: set[str]) -> Channel | _Built:
        opened = rattler.Channel(channel)
        return await _by_build_time(opened, subdirs, gateway) if channel in built else opened

    failure: SolverError | None = None
    try:
        for built in by_build:
            try:
                records = await rattler.solve(
                    [await source(channel, built) for channel in request["channels"]],
                    specs,
                    gateway=gateway,
                    platforms=subdirs,
                    virtual_packages=rattler.VirtualPackage.detect(),
                    exclude_newer=datetime.datetime.fromisoformat(dated) if dated else None,
                )
                return {"records": [json.loads(record.to_json()) for record in records]}
            except SolverError as error:
                failure = error
    except GatewayError as error:
        raise Failed("uncached" if request["offline"] else "channel", str(error)) from error
    raise Failed("solve", str(failure))


async def _by_build_time(channel: Channel, subdirs: list[Subdir], gateway: Gateway) -> _Built:
    return _Built(channel, {str(subdir): await gateway.names([channel], [subdir]) for subdir in subdirs}, gateway)


class _Built:
    """A channel as it was by the times at which packages were built.

    The time at which a channel listed a package says more, where it says anything: a folder, or a mirror that somebody made, is
    listed anew whenever something is put into it.
    """

    def __init__(self, channel: Channel, names: dict[str, list[PackageName]], gateway: Gateway) -> None:
        self._channel = channel
        self._names = names
        self._gateway = gateway

    async def fetch_package_records(self, platform: Subdir, name: PackageName) -> list[RepoDataRecord]:
        found = await self._gateway.query([self._channel], [platform], [name.normalized], recursive=False)
        records = [record for group in found for record in group]
        for record in records:
            record.indexed_timestamp = None
        return records

    def package_names(self, platform: Subdir) -> list[str]:
        return [name.normalized for name in self._names[str(platform)]]


def match_spec(text: str) -> MatchSpec:
    """A dependency as people write it."""
    import rattler

    try:
        return rattler.MatchSpec(text, strict=False)
    except Exception as error:  # of a type that is not exported
        raise Failed("spec", f"{text!r}: {error}") from error


def client() -> Client:
    """Credentials come from where rattler's own tools keep them (`RATTLER_AUTH_FILE`, keyring), proxies from the variables."""
    from rattler.networking import Client

    return Client.default_client()


# -- install: packages of a lock into a prefix


async def install(request: Request) -> Request:
    """`packages`, `prefix`, `cache`, `offline`: everything verified, then linked.  → `{}`

    A package is one of the lock with `url`, and `place`: its channel's URL without credentials.
    """
    import rattler
    from rattler.exceptions import InstallerError
    from rattler.package_cache import PackageCache, PackageCacheLayer, ValidationMode

    archives = Path(request["cache"], "archives")
    archives.mkdir(parents=True, exist_ok=True)
    _sweep(archives)
    packages = request["packages"]
    await _fetch(packages, archives, offline=request["offline"])
    records = []
    with _scratch(archives) as scratch:
        for package in packages:
            records.append(_record(package, _archive(archives, package), scratch / "index.json"))
    layer = PackageCacheLayer(Path(request["cache"], "pkgs")).with_validation_mode(ValidationMode.full())
    prefix = Path(request["prefix"])
    tell(f"installing {len(records)} conda packages")
    try:
        await rattler.install(records, prefix, package_cache=PackageCache.from_layers([layer]), show_progress=False)
    except InstallerError as error:
        raise Failed("install", str(error)) from error
    return {}


async def fetch(request: Request) -> Request:
    """`packages`, `cache`, `offline`, `into`: every package file, verified, in the folder `into`.  → `{}`"""
    archives = Path(request["cache"], "archives")
    archives.mkdir(parents=True, exist_ok=True)
    _sweep(archives)
    await _fetch(request["packages"], archives, offline=request["offline"])
    for package in request["packages"]:
        _copy(_archive(archives, package), Path(request["into"], package["file"]))
    return {}


def _archive(archives: Path, package: Request) -> Path:
    """Where a package file is kept: under its hash, and with its own name, from which its format is known."""
    return archives.joinpath(package["sha256"], package["file"])


@contextlib.contextmanager
def _scratch(archives: Path) -> Iterator[Path]:
    """A folder that is named after this process, so that one that was killed is known by it."""
    with tempfile.TemporaryDirectory(dir=archives, prefix=f".{os.getpid()}-") as name:
        yield Path(name)


def _sweep(archives: Path) -> None:
    """Remove what processes left that were killed."""
    for name in os.listdir(archives):
        owner = name[1:].partition("-")[0]
        if name.startswith(".") and owner.isdigit() and not Path("/proc", owner).exists():
            shutil.rmtree(archives / name, ignore_errors=True)


async def _fetch(packages: list[Request], archives: Path, *, offline: bool) -> None:
    """Have every package file here, as the lock has it."""
    missing = [package for package in packages if not _sound(_archive(archives, package), package)]
    remote = [package for package in missing if not package["url"].startswith("file:")]
    if offline and remote:
        raise Failed("offline", ", ".join(package["file"] for package in remote[:10]))
    gate = asyncio.Semaphore(_DOWNLOADS)
    done = 0

    async def one(package: Request, scratch: Path) -> None:
        nonlocal done
        async with gate:
            await _fetch_one(package, archives, scratch)
            done += 1
            tell(f"fetched {package['name']} {package['version']} ({done} of {len(missing)})")

    with _scratch(archives) as scratch:
        results = await asyncio.gather(*(one(package, scratch) for package in missing), return_exceptions=True)
    for problem in results:
        if isinstance(problem, BaseException):
            raise problem


async def _fetch_one(package: Request, archives: Path, scratch: Path) -> None:
    target = _archive(archives, package)
    fresh = scratch / package["sha256"]
    url = package["url"]
    try:
        if url.startswith("file:"):
            _copy(_local(url), fresh)
        else:
            from rattler.package_streaming import download_to_path

            await download_to_path(client(), url, fresh)
        found = _sha256(fresh)
        if found != package["sha256"]:
            raise Failed(
                "hash", f"{package['file']} of {package['channel']} has sha256 {found}, and {package['sha256']} is wanted"
            )
        target.parent.mkdir(exist_ok=True)
        os.replace(fresh, target)
    except (Failed, asyncio.CancelledError):
        raise
    except Exception as error:  # of whatever lies between here and the channel
        raise Failed("channel", f"{package['file']} of {package['channel']}: {error}") from error


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reading, target.open("wb") as writing:
        while block := reading.read(_BLOCK):
            writing.write(block)


def _sound(path: Path, package: Request) -> bool:
    """Whether a package file is here as it should be.  Its folder's time is that of the last use."""
    try:
        os.utime(path.parent)
        return path.stat().st_size == (package["size"] or path.stat().st_size) and _sha256(path) == str(package["sha256"])
    except OSError:
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _record(package: Request, archive: Path, index: Path) -> RepoDataRecord:
    import rattler

    stated = {key: package[key] for key in ("name", "version", "build", "build_number", "subdir", "depends")}
    stated |= {"noarch": package["noarch"]} if package["noarch"] else {}
    stated |= {"python_site_packages_path": package["site_packages"]} if package["site_packages"] else {}
    index.write_text(json.dumps(stated))
    record = rattler.PackageRecord.from_index_json(index, package["size"] or None, package["sha256"])
    return rattler.RepoDataRecord(record, package["file"], archive.absolute().as_uri(), package["place"])


def answer(request: Request) -> Request:
    """What was asked for."""
    if request["do"] == "reach":
        return reach(request)
    verbs: dict[str, Callable[[Request], Coroutine[Any, Any, Request]]] = {"solve": solve, "install": install, "fetch": fetch}
    return asyncio.run(verbs[request["do"]](request))


def main() -> None:
    """Answer one request.  What fails is part of the answer; the exit code is 0 unless this program itself is wrong."""
    try:
        found = answer(json.loads(sys.stdin.read()))
    except Failed as error:
        found = {"error": error.kind, "said": str(error)}
    sys.stdout.write(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)  # rattler's threads may abort an interpreter that takes itself down in the usual way


if __name__ == "__main__":
    main()

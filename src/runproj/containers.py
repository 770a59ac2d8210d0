"""What a run's container is given: code, data and variables in places that are the same for every run; the caller's rights."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from runproj import engine as engines
from runproj import far_engine, gateways
from runproj.core import container
from runproj.core.backend import Engine as EngineVariables
from runproj.core.call import BoundValue, Call
from runproj.core.dialect import shell_for
from runproj.core.environment import DockerSpec, ImageFacts
from runproj.core.plan import Plan
from runproj.core.project import ParameterType, Resources
from runproj.core.source import Checkout
from runproj.core.values import dataclass
from runproj.engine import Engine, EngineAway, EngineError, Where
from runproj.errors import BackendError, StartError
from runproj.files import atomic_write, explained
from runproj.settings import parse_size

ROOT = "/runproj"
CODE, HOME, SPOOL, CLIENT = f"{ROOT}/code", f"{ROOT}/home", f"{ROOT}/spool", f"{ROOT}/client"
PARAMETERS, PATHS = f"{ROOT}/params", f"{ROOT}/paths"
AUTHORITIES = f"{ROOT}/ca.pem"
_CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT")
_DIRECT = ("NO_PROXY", "no_proxy")
LOOPBACK = "127.0.0.1"
_RUN, _HOME, _TOKEN = "runproj.run", "runproj.home", "runproj.token"
_MARK = "container.json"


@dataclass(frozen=True)
class Identity:
    """Whose container it is.  `token` is the lease of the run; `home` the folder that holds it."""

    run_id: str
    token: str
    home: Path

    @property
    def name(self) -> str:
        return f"runproj-{self.run_id}"

    @property
    def labels(self) -> dict[str, str]:
        return {_RUN: self.run_id, _HOME: home_mark(self.home), _TOKEN: self.token}


def home_mark(home: Path) -> str:
    """Tells the containers of one home on one machine from all others."""
    return hashlib.sha256(f"{socket.gethostname()}\0{home}".encode(errors="surrogateescape")).hexdigest()[:32]


@dataclass(frozen=True)
class _Mount:
    source: str
    target: str
    writable: bool = False
    kind: str = "bind"

    def words(self) -> dict[str, object]:
        return {"Type": self.kind, "Source": self.source, "Target": self.target, "ReadOnly": not self.writable}


@dataclass
class Box:
    """A run's container before it is made.

    folder: of the run, with what was fetched for it;  typed: what the user asked for on the command line;
    far: whether the engine does not see this machine's folders.
    """

    identity: Identity
    plan: Plan
    image: ImageFacts
    checkout: Checkout
    folder: Path
    where: Where
    typed: container.Options
    far: bool = False
    _mounts: list[_Mount] = field(default_factory=list)

    @property
    def asked(self) -> DockerSpec:
        return self.plan.lock.image.asked if self.plan.lock.image else DockerSpec()

    @property
    def network(self) -> str:
        return self.typed.network or self.asked.network or "bridge"

    @property
    def project(self) -> str:
        """The project's folder inside."""
        below = self.checkout.pin.subdirectory
        return f"{CODE}/{below}" if below else CODE

    @cached_property
    def address(self) -> str:
        """Where on this machine a server has to listen for the container to reach it.  Loopback where it can reach none."""
        if self.far:
            return far_engine.listening(self.typed.reach)
        if self.network in ("host", "none") or self.network.startswith("container:"):
            return LOOPBACK
        return gateways.of(self.network, Engine(self.where)) or LOOPBACK

    # -- paths

    def call(self, call: Call) -> Call:
        """The call with paths as the container has them: what is elsewhere on this machine is mounted, to be read."""
        return replace(call, values=tuple(self._value(index, value) for index, value in enumerate(call.values)))

    def _value(self, index: int, value: BoundValue) -> BoundValue:
        text = value.resolved or value.value or ""
        if value.type is not ParameterType.PATH or not text.startswith("/") or not Path(text).exists():
            return value
        if inside := self._inside(text):
            return replace(value, resolved=inside)
        return replace(value, resolved=self._mounted(text, f"{PATHS}/{index}"))

    def _mounted(self, path: str, below: str) -> str:
        """Where the container sees something of this machine, to be read."""
        target = f"{below}/{os.path.basename(path.rstrip('/')) or 'root'}"  # noqa: PTH119
        self._mounts.append(_Mount(os.path.realpath(path), target))
        return target

    def _inside(self, path: str) -> str:
        for folder, target in ((self.checkout.root, CODE), (self.folder / "params", PARAMETERS)):
            if path == str(folder) or path.startswith(f"{folder}/"):
                return target + path[len(str(folder)) :]
        return ""

    def variables(self, paths: Mapping[str, str]) -> dict[str, str]:
        """Variables that name paths, as the container has them."""
        return {name: self._inside(path) or self._mounted(path, f"{PATHS}/{name}") for name, path in paths.items()}

    def shell_for(self, script: str) -> str:
        """The image's shell for a script.  Raises `StartError`."""
        return shell_for(script, bash=_has_bash(self.identity, self.image.id, self.where))

    # -- the engine's words

    def order(self, argv: tuple[str, ...], variables: Mapping[str, str], client: Path) -> bytes:
        """What `contained.py` is told."""
        told: dict[str, object] = {"url": self.where.url, "certificates": self.where.certificates, "name": self.identity.name}
        mounts: Sequence[Mapping[str, object]] = [
            mount.words() for mount in (*self._places(client), *self._mounts, *self._volumes())
        ]
        if self.far:
            mounts, copies = far_engine.copied(mounts, ROOT)
            back = [(CODE, str(self.checkout.root)), (SPOOL, str(self.spool))]
            told["far"] = {"root": ROOT, "load": copies, "owner": _owner(), "fetch": back, "scratch": str(self.folder)}
        told["body"] = self._body(argv, variables, mounts)
        try:
            return json.dumps(told, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise StartError(
                "The engine cannot be told what to run",
                why="A value or a path is not UTF-8, and the engine's protocol knows no other.",
            ) from error

    def _body(self, argv: tuple[str, ...], variables: Mapping[str, str], mounts: Sequence[object]) -> dict[str, object]:
        asked, typed = self.asked, self.typed
        host: dict[str, object] = {
            "NetworkMode": self.network,
            "Init": True,  # PID 1 that passes signals on; without it the command would ignore them
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "LogConfig": {"Type": "none"},  # we keep the output ourselves
            "Mounts": mounts,
            **_limits(self.plan.entry_point.resources),
        }
        if asked.gpus:
            host["DeviceRequests"] = [container.gpus(asked.gpus)]
        if asked.shm_size:
            host["ShmSize"] = container.size(asked.shm_size)
        groups = [str(group) for group in os.getgroups() if group != os.getgid()] if os.getuid() else []
        if groups and "User" not in typed.config and not asked.user:
            host["GroupAdd"] = groups
        for key, value in typed.host.items():
            there = host.get(key)
            host[key] = [*there, *value] if isinstance(there, list) and isinstance(value, list) else value
        if host.get("DeviceRequests") and (given := os.environ.get(EngineVariables.GPUS)) is not None:  # these, not any
            host["DeviceRequests"] = [container.gpus(f"device={given}")] if given else []
        return {
            "Image": self.image.id,
            "Cmd": list(argv),
            "Env": [f"{name}={value}" for name, value in variables.items()],
            "WorkingDir": self.project,
            "User": asked.user or ("0:0" if self.where.rootless and not self.far else ":".join(map(str, _owner()))),
            "Labels": {**typed.labels, **self.identity.labels},
            "AttachStdout": True,
            "AttachStderr": True,
            "HostConfig": host,
            **typed.config,
        }

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """The variables of the container, with those that the run gives it."""
        own, user = dict(self.image.variables), _user()
        proxies = _proxies(os.environ) if self.typed.proxy else {}
        direct = {name: [found[name] for found in (own, proxies, variables) if found.get(name)] for name in _DIRECT}
        variables = {**proxies, **variables, **{name: ",".join(names) for name, names in direct.items() if names}}
        given = {
            "HOME": HOME,
            "USER": user,
            "LOGNAME": user,
            "PYTHONUNBUFFERED": own.get("PYTHONUNBUFFERED", "1"),
            "PYTHONPATH": own.get("PYTHONPATH", ""),
            "TINI_KILL_PROCESS_GROUP": "1",  # a signal is for all of a pipeline, not for its shell alone
            **(dict.fromkeys(_CERTIFICATES, AUTHORITIES) if self.typed.certificates else {}),
            **_taken(self.asked.environment, os.environ),
            **variables,
            **_taken(self.typed.environment, os.environ),
        }
        path = ":".join(filter(None, [CLIENT, given["PYTHONPATH"]]))
        return {**given, "PYTHONPATH": path, "RUNPROJ_RUN_ID": self.identity.run_id, "RUNPROJ_SPOOL": SPOOL}

    @property
    def spool(self) -> Path:
        """Where the container leaves what it has logged and not sent.  It is not to be believed: see `salvage`."""
        return self.folder / "spool"

    def _places(self, client: Path) -> Iterator[_Mount]:
        home = self.folder / "home"
        with explained(home):
            home.mkdir(exist_ok=True)
            self.spool.mkdir(exist_ok=True)
        yield _Mount(str(self.checkout.root), CODE, writable=True)
        yield _Mount(str(home), HOME, writable=True)
        yield _Mount(str(self.spool), SPOOL, writable=True)
        yield _Mount(str(client), CLIENT)
        if (fetched := self.folder / "params").is_dir():
            yield _Mount(str(fetched), PARAMETERS)
        if self.typed.certificates:
            yield _Mount(_certificates(self.typed.certificates), AUTHORITIES)
        for objects in () if self.far else _borrowed(self.checkout.root):  # so that git works in there too
            yield _Mount(objects, objects)

    def _volumes(self) -> Iterator[_Mount]:
        for text in self.asked.volumes:
            yield self._volume(container.volume(text))
        for wanted in self.typed.volumes:
            yield self._volume(wanted)

    def _volume(self, wanted: container.Volume) -> _Mount:
        if wanted.named:
            return _Mount(wanted.source, wanted.target, wanted.writable, "volume")
        path = os.path.normpath(self.checkout.project / Path(wanted.source).expanduser())
        if path.startswith(f"{self.checkout.root}/") and not Path(path).exists():
            with explained(Path(path)):
                Path(path).mkdir(parents=True)  # as docker does
        return _Mount(path, wanted.target, wanted.writable)

    # -- its end

    def mark(self) -> None:
        """Leave where the container is, for whoever closes the run in our stead."""
        told = json.dumps({"url": self.where.url, "certificates": self.where.certificates})
        with explained(self.folder):
            (self.folder / _MARK).write_text(told)

    def sweep(self) -> None:
        """Remove containers of this home that nobody looks after: no lease is left of their runs."""
        engine, home = Engine(self.where), self.identity.home
        for found in _listed(engine, f"{_HOME}={home_mark(home)}"):
            if not (home / "active" / f"{found['Labels'].get(_TOKEN)}.json").exists():
                _remove(engine, found["Id"])

    def remove(self) -> None:
        """Have the container gone, if whoever looked after it could not."""
        _remove(Engine(self.where), self.identity.name)


def _has_bash(identity: Identity, image: str, where: Where) -> bool:
    """Whether there is a bash in an image; looked up once for each, in a container that is never started."""
    known = identity.home / "cache" / "images" / image.removeprefix("sha256:")
    with contextlib.suppress(OSError):
        return known.read_text() == "bash"
    engine, name = Engine(where), f"{identity.name}-look"
    try:
        engine.post("/containers/create", {"Image": image, "Cmd": ["true"], "Labels": identity.labels}, name=name)
        try:
            found = any(_exists(engine, name, f"{folder}/bash") for folder in ("/bin", "/usr/bin", "/usr/local/bin"))
        finally:
            _remove(engine, name)
    except EngineError as error:
        raise BackendError("The engine cannot make a container of the image", why=error.message) from error
    except EngineAway as error:
        raise engines.unreachable(where, error) from error
    atomic_write(known, "bash" if found else "sh")
    return found


def _exists(engine: Engine, name: str, path: str) -> bool:
    try:
        engine.ask("HEAD", f"/containers/{name}/archive", {"path": path})
    except EngineError:
        return False
    return True


def _limits(resources: Resources) -> dict[str, object]:
    """What the entry point says it needs is what it gets."""
    found: dict[str, object] = {}
    if resources.cpus:
        found["NanoCpus"] = int(resources.cpus * 1e9)
    if resources.memory:
        found["Memory"] = found["MemorySwap"] = parse_size(resources.memory)
    if resources.gpus:
        found["DeviceRequests"] = [container.gpus(str(resources.gpus))]
    return found


def _taken(pairs: Iterable[tuple[str, str | None]], environ: Mapping[str, str]) -> dict[str, str]:
    """Variables with their values; those without one are copied from here.  Raises `StartError` where there is none."""
    wanted = dict(pairs)
    if missing := sorted(name for name, value in wanted.items() if value is None and name not in environ):
        raise StartError(
            f"The project expects variables that are not set: {', '.join(missing)}",
            fix=" ".join(f"export {name}=…" for name in missing),
        )
    return {name: environ[name] if value is None else value for name, value in wanted.items()}


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    return {name: environ[name] for upper in names for name in (upper, upper.lower()) if environ.get(name)}


def _certificates(chosen: str) -> str:
    """The file of certificates to trust.  Raises `StartError`."""
    usual = (os.environ.get("SSL_CERT_FILE", ""), "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
    for name in usual if chosen == container.SYSTEM_CERTIFICATES else (chosen,):
        if name and Path(name).is_file():
            return str(Path(name).resolve())
    raise StartError("There is no such file of certificates", why=chosen, fix="Name one: -A ca=FILE.")


def _owner() -> tuple[int, int]:
    """Who the command is: whoever runs us, so that files it writes are theirs."""
    return os.getuid(), os.getgid()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _borrowed(root: Path) -> list[str]:
    """Folders whose objects the checkout's repository uses."""
    try:
        lines = (root / ".git/objects/info/alternates").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.startswith("/") and os.path.isdir(line)]  # noqa: PTH112


def _remove(engine: Engine, name: str) -> None:
    with contextlib.suppress(EngineError, EngineAway):  # it is gone already, or with its engine
        engine.delete(f"/containers/{name}", force=1, v=1)


def end_of_run(folder: Path, run_id: str) -> bool:
    """Remove the container of a run whose executor is gone; whether it had one."""
    try:
        told = json.loads((folder / _MARK).read_bytes())
        engine = Engine(Where(told["url"], told["certificates"]))
    except (OSError, ValueError, KeyError):
        return False
    for found in _listed(engine, f"{_RUN}={run_id}"):
        _remove(engine, found["Id"])
    return True


def _listed(engine: Engine, label: str) -> list[dict[str, Any]]:
    try:
        return engine.get("/containers/json", all=1, filters=engines.filters(label=[label])) or []
    except (EngineError, EngineAway):
        return []

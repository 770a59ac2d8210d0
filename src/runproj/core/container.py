"""What can be asked of a container, in the words of `docker run`, and the engine's words for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field

from runproj.core.template import suggestion
from runproj.core.values import dataclass
from runproj.errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)i?b?", re.IGNORECASE)
_POWERS = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def size(text: str) -> int:
    """Bytes of a size as Docker reads it: "64m" is 64 MiB.  Raises `UsageError`."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise UsageError(f"{text!r} is not a size", fix="Write it like 512m or 2g.")
    return int(float(match[1]) * 1024 ** _POWERS[match[2].lower()])


@dataclass(frozen=True)
class Volume:
    """Something of the host, or a volume of the engine by name, that a container sees at `target`."""

    source: str
    target: str
    writable: bool = True

    @property
    def named(self) -> bool:
        """Whether it is a volume of the engine, not a path."""
        return not self.source.startswith(("/", ".", "~"))


_PWD = re.compile(r"^(?:\$\(pwd\)|`pwd`|\$\{PWD\}|\$PWD)(?=$|[/:])")


def volume(text: str, *, typed: bool = False) -> Volume:
    """`source:target[:mode]`; `$(pwd)` and `${PWD}` at its start are the project's folder, and become `.`.

    No shell expands anything else; one has done so already where the user has `typed` it.  Raises `UsageError`.
    """
    source, colon, rest = (text if typed else _PWD.sub(".", text.strip())).partition(":")
    target, _, mode = rest.partition(":")
    if not colon or not source or not target.startswith("/"):
        raise UsageError(f"{text!r} is not a volume", fix="Write it as SOURCE:TARGET or SOURCE:TARGET:ro, TARGET being absolute.")
    if not typed and ("$" in source or "`" in source):
        raise UsageError(
            f"The volume {text!r} has a variable in it", why="Of variables, only $(pwd) and ${PWD} at the beginning are replaced."
        )
    return Volume(source, target, "ro" not in mode.split(","))


SYSTEM_CERTIFICATES = "system"


@dataclass
class Options:
    """What a container gets beside what runproj gives it.  `config` and `host` in the engine's words.

    proxy: the variables of this shell that name proxies;  certificates: a file of certificates to trust instead of the image's
           own, or `SYSTEM_CERTIFICATES` for those of this machine;
    reach: how containers of an engine elsewhere reach this machine.  None of the three is a word of `docker run`.
    """

    config: dict[str, object] = field(default_factory=dict)
    host: dict[str, object] = field(default_factory=dict)
    volumes: list[Volume] = field(default_factory=list)
    environment: list[tuple[str, str | None]] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    network: str = ""
    proxy: bool = False
    certificates: str = ""
    reach: str = ""

    def add_to(self, key: str, value: object) -> None:
        """Add to a list of the host's part."""
        there = self.host.setdefault(key, [])
        if isinstance(there, list):
            there.append(value)


def gpus(text: str) -> dict[str, object]:
    """The engine's request for graphics cards: "all", how many, or "device=ID,ID".  Raises `UsageError`."""
    request: dict[str, object] = {"Driver": "", "Capabilities": [["gpu"]]}
    bare = text.strip().strip('"')
    if bare == "all":
        return request | {"Count": -1}
    if bare.isdigit():
        return request | {"Count": int(bare)}
    if bare.startswith("device=") and bare != "device=":
        return request | {"DeviceIDs": bare.removeprefix("device=").split(",")}
    raise UsageError(f"{text!r} does not say which GPUs", fix="Write all, a number, or device=ID,ID.")


def _environment(options: Options, text: str) -> None:
    name, equals, value = text.partition("=")
    options.environment.append((name, value if equals else None))


def _device(options: Options, text: str) -> None:
    inside_and_rights = text.split(":")
    host = inside_and_rights[0]
    inside = inside_and_rights[1] if len(inside_and_rights) > 1 else host
    rights = inside_and_rights[2] if len(inside_and_rights) > 2 else "rwm"
    options.add_to("Devices", {"PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": rights})


def _ulimit(options: Options, text: str) -> None:
    match = re.fullmatch(r"(\w+)=(-?\d+)(?::(-?\d+))?", text)
    if not match:
        raise UsageError(f"{text!r} is not a limit", fix="Write it like memlock=-1 or nofile=1024:4096.")
    options.add_to("Ulimits", {"Name": match[1], "Soft": int(match[2]), "Hard": int(match[3] or match[2])})


def _tmpfs(options: Options, text: str) -> None:
    target, _, how = text.partition(":")
    there = options.host.setdefault("Tmpfs", {})
    if isinstance(there, dict):
        there[target] = how


def _label(options: Options, text: str) -> None:
    name, _, value = text.partition("=")
    if name.startswith("runproj."):
        raise UsageError(f"The label {name!r} is runproj's own")
    options.labels[name] = value


def _proxy(options: Options, text: str) -> None:
    options.proxy = _truth(text)


def _certificates(options: Options, text: str) -> None:
    options.certificates = text or SYSTEM_CERTIFICATES


def _reach(options: Options, text: str) -> None:
    options.reach = text


def _network(options: Options, text: str) -> None:
    options.network = text


def _memory(options: Options, text: str) -> None:
    options.host |= {"Memory": size(text), "MemorySwap": size(text)}


_Taker = Callable[[Options, str], None]


def _host(key: str, read: Callable[[str], object] = str) -> _Taker:
    def take(options: Options, text: str) -> None:
        options.host[key] = read(text)

    return take


def _list(key: str) -> _Taker:
    return lambda options, text: options.add_to(key, text)


def _config(key: str, read: Callable[[str], object] = str) -> _Taker:
    def take(options: Options, text: str) -> None:
        options.config[key] = read(text)

    return take


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a number") from None


def _truth(text: str) -> bool:
    return text.lower() in ("", "true", "1", "yes")


_OPTIONS: Mapping[str, _Taker] = {
    "volume": lambda options, text: options.volumes.append(volume(text, typed=True)),
    "env": _environment,
    "network": _network,
    "proxy": _proxy,
    "ca": _certificates,
    "reach": _reach,
    "gpus": lambda options, text: options.add_to("DeviceRequests", gpus(text)),
    "user": _config("User"),
    "hostname": _config("Hostname"),
    "entrypoint": _config("Entrypoint", lambda text: [text] if text else []),
    "label": _label,
    "memory": _memory,
    "cpus": _host("NanoCpus", lambda text: int(_number(text) * 1e9)),
    "cpuset-cpus": _host("CpusetCpus"),
    "shm-size": _host("ShmSize", size),
    "pids-limit": _host("PidsLimit", lambda text: int(_number(text))),
    "ipc": _host("IpcMode"),
    "pid": _host("PidMode"),
    "runtime": _host("Runtime"),
    "privileged": _host("Privileged", _truth),
    "read-only": _host("ReadonlyRootfs", _truth),
    "cap-add": _list("CapAdd"),
    "security-opt": _list("SecurityOpt"),
    "group-add": _list("GroupAdd"),
    "add-host": _list("ExtraHosts"),
    "dns": _list("Dns"),
    "device": _device,
    "ulimit": _ulimit,
    "tmpfs": _tmpfs,
}
_SHORT = {"v": "volume", "e": "env", "u": "user", "m": "memory", "h": "hostname", "l": "label", "net": "network"}
_ALONE = ("privileged", "read-only", "proxy", "ca")
"""What means something without a value."""
_OURS = re.compile("name|rm|detach|d|interactive|i|tty|t|it|workdir|w|init|restart|cidfile|attach|a")


def options(given: Sequence[str]) -> Options:
    """What `-A NAME[=VALUE]` asks for, in the words of `docker run`.  Raises `UsageError`."""
    found = Options()
    for text in given:
        name, equals, value = text.partition("=")
        name = name.lstrip("-")
        name = _SHORT.get(name, name)
        if _OURS.fullmatch(name):
            raise UsageError(f"-A {text}: this is what runproj itself decides")
        if name not in _OPTIONS:
            known = sorted(_OPTIONS)
            hint = suggestion(name, known) or f"Known are: {', '.join(known)}."
            raise UsageError(f"-A {text}: there is no such option", fix=hint)
        if not equals and name not in _ALONE:
            raise UsageError(f"-A {name} needs a value", fix=f"Write -A {name}=VALUE.")
        _OPTIONS[name](found, value)
    return found

"""Stands between the executor and a run's container, as `guard.py` does for processes, so that no container outlives its run.

Run as a script by `supervise.py` with `python -I -S`; what it imports beside the standard library is `runproj.engine` alone.

    contained.py CONTROL STATUS -- ORDER

ORDER is a descriptor to read JSON from: where the engine is, the container's name, and what the engine's `create` call gets.
CONTROL is a pipe from the executor: a byte N means "send signal N into the container"; its end means that the executor is gone,
and the container is removed, whatever it is doing.  STATUS takes one JSON line: how the container ended.  Its output goes to
this process's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120

from runproj.engine import Engine, EngineAway, EngineError, Where

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from typing import Any

_HEAD = 8  # bytes before each piece of output: stream, three zeros, length
_READ = 1 << 18


class Gone(Exception):
    """The executor is no more."""


class Keeper:
    """One container from its creation to its removal."""

    def __init__(self, engine: Engine, name: str, control: int, far: Mapping[str, Any] | None = None) -> None:
        self._engine = engine
        self._far = far  # what goes there and comes back, where the engine does not see this machine's folders
        self._name = name
        self._control = control
        self._stopped = 0
        self._started = False
        self._rest = b""
        self._sinks = {1: 1, 2: 2}

    def keep(self, body: object) -> dict[str, object]:
        """Create, start, follow to the end; how it ended.  Raises `Gone`, `EngineError`, `EngineAway`, and then it is gone."""
        self._engine.post("/containers/create", body, name=self._name)
        try:
            return self._run()
        except BaseException:
            self.remove()
            raise

    def _run(self) -> dict[str, object]:
        if self._far:
            from runproj import ferry

            ferry.load(self._engine, self._name, *(self._far[word] for word in ("root", "load", "owner", "scratch")))
        with self._engine.attach(self._name) as output:
            self._listen(wait=False)
            if self._stopped:
                return {"code": 128 + self._stopped}
            self._engine.post(f"/containers/{self._name}/start")
            self._started = True
            self._follow(output)
        with self._engine.send("POST", f"/containers/{self._name}/wait", {}) as link:
            link.settimeout(None)
            self._until(link)
            code = int(self._engine.answer(link)["StatusCode"])
        if self._far:
            for source, into in self._far["fetch"]:
                ferry.fetch(self._engine, self._name, source, into, lambda: self._listen(wait=False))
        state = self._engine.get(f"/containers/{self._name}/json")["State"]
        return {"code": code, "memory_ran_out": bool(state.get("OOMKilled"))}

    def remove(self) -> None:
        """Have it gone.  Tries for a while: the engine may be busy with it, or just starting again."""
        begun = time.monotonic()
        while True:
            patience = 20.0
            try:
                self._engine.delete(f"/containers/{self._name}", force=1, v=1)
            except EngineError as error:
                if error.status == 404:
                    return
            except EngineAway:
                patience = 3.0
            else:
                return
            if time.monotonic() > begun + patience:
                return
            time.sleep(0.2)

    def _listen(self, *, wait: bool) -> None:
        """Do what the executor says, if it says anything."""
        if not wait and not select.select([self._control], [], [], 0)[0]:
            return
        word = os.read(self._control, 1)
        if not word:
            raise Gone
        self._stopped = word[0]
        if self._started:
            with contextlib.suppress(EngineError, EngineAway):  # it has just ended; or who should pass it on is gone
                self._engine.post(f"/containers/{self._name}/kill", signal=word[0])

    def _until(self, link: socket.socket) -> None:
        """Return when something comes on the connection."""
        while True:
            ready, _, _ = select.select([self._control, link.fileno()], [], [])
            if self._control in ready:
                self._listen(wait=True)
            if link.fileno() in ready:
                return

    def _follow(self, output: socket.socket) -> None:
        """Pass output on until it ends."""
        pending = getattr(output, "pending", lambda: 0)  # of a connection with TLS
        while True:
            if not pending():
                self._until(output)
            data = output.recv(_READ)
            if not data:
                return
            self._pass_on(self._rest + data)

    def _pass_on(self, data: bytes) -> None:
        at = 0
        while len(data) - at >= _HEAD:
            stream, size = data[at], int.from_bytes(data[at + 4 : at + _HEAD], "big")
            if len(data) - at - _HEAD < size:
                break
            self._write(self._sinks[2 if stream == 2 else 1], data[at + _HEAD : at + _HEAD + size])
            at += _HEAD + size
        self._rest = data[at:]

    def _write(self, sink: int, data: bytes) -> None:
        """Write all of it, and listen meanwhile: whoever reads may take their time."""
        view = memoryview(data)
        while view:
            ready, free, _ = select.select([self._control], [sink], [])
            if ready:
                self._listen(wait=True)
            if free:
                try:
                    view = view[os.write(sink, view) :]
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    return


def main() -> int:
    control, status, order = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[4])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the executor decides; its word comes through CONTROL
    with os.fdopen(order, "rb") as file:
        asked = json.load(file)
    for sink in (1, 2):
        os.set_blocking(sink, False)
    keeper = Keeper(Engine(Where(asked["url"], asked["certificates"])), asked["name"], control, asked.get("far"))
    try:
        report = keeper.keep(asked["body"])
    except Gone:
        return 1
    except EngineError as error:
        report = {"code": 125, "failed": error.message}
    except EngineAway as error:
        report = {"code": 125, "failed": f"the engine is gone: {error}"}
    except Exception as error:  # of `ferry`: a full disk, an archive that is none
        report = {"code": 125, "failed": str(error)}
    os.write(status, json.dumps(report).encode() + b"\n")
    for descriptor in (status, 1, 2):  # all is said; what remains to be done, nobody has to wait for
        os.close(descriptor)
    keeper.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())

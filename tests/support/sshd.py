"""A machine that is reached by ssh, as far as one can be had here: a server of our own, that sees nothing of the tests' files."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uv

from support.alone import away
from support.ports import free_port


class Sshd:
    """The machine.  `folder`: its own;  `hidden`: what it does not see, may be above;  `home`: of whoever logs in."""

    def __init__(self, folder: Path, hidden: Path) -> None:
        found = shutil.which("sshd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
        if found is None:
            raise RuntimeError("missing: sshd (Debian: openssh-server)")
        self._program, self.folder, self.hidden, self.home, self.port = found, folder, hidden, folder / "home", free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        self.home.mkdir()
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name], check=True)
        (self.folder / "authorized").write_text((self.folder / "user.pub").read_text())
        kind, key, *_ = (self.folder / "host.pub").read_text().split()
        (self.folder / "known").write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")
        lines = [f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {self.folder}/host", "UsePAM no", "StrictModes no"]
        lines += [f"AuthorizedKeysFile {self.folder}/authorized", "PasswordAuthentication no", "PermitRootLogin yes"]
        lines += [
            "SetEnv " + " ".join(f'{name}="{value}"' for name, value in self._variables().items()),
            f"PidFile {self.folder}/pid",
            "MaxSessions 50",
        ]
        (self.folder / "config").write_text("\n".join(lines) + "\n")

        (self.home / ".bashrc").write_text("echo Welcome; echo 'You have mail' >&2\n")  # as many do, for whoever logs in

    def _variables(self) -> dict[str, str]:
        """Of whoever logs in: where packages come from is a matter of the machine."""
        found = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_", "SSL_"))}
        return {**found, "UV_CACHE_DIR": str(uv_cache()), "HOME": str(self.home)}

    def start(self) -> None:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd wants it to be there
        with (self.folder / "log").open("ab") as log:
            command = [*away(self.folder, self.hidden), self._program, "-D", "-e", "-f", str(self.folder / "config")]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 300
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"sshd did not start:\n{(self.folder / 'log').read_text()}") from None
                time.sleep(0.1)

    def stop(self) -> None:
        """End the server and all connections; what was started goes on."""
        if self._process is not None:
            children: list[str] = []
            with contextlib.suppress(FileNotFoundError):  # it did not start
                children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            for pid in [*map(int, children), self._process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    @property
    def jobs(self) -> Path:
        """Where runproj puts them."""
        return self.home / ".cache" / "runproj-jobs"

    def executor(self, run_id: str) -> int:
        """The process that executes a run; waits until there is one."""
        path = self.jobs / run_id / "parcel" / "record" / "here"
        deadline = time.monotonic() + 300
        while not path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return int(path.read_text().split()[1])

    @property
    def config(self) -> dict[str, Any]:
        """Options of the backend that lead here."""
        words = ["-p", str(self.port), "-i", str(self.folder / "user"), "-o", "IdentitiesOnly=yes"]
        words += ["-o", f"UserKnownHostsFile={self.folder}/known", "-o", "StrictHostKeyChecking=yes"]
        return {"host": "127.0.0.1", "python": sys.executable, "ssh": words}


def uv_cache() -> Path:
    """Where wheels are kept on this machine."""
    found = subprocess.run([uv.find_uv_bin(), "cache", "dir"], check=True, capture_output=True, text=True)
    return Path(found.stdout.strip())


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A machine that runs."""
    found = Sshd(tmp_path_factory.mktemp("sshd"), tmp_path_factory.getbasetemp())
    found.prepare()
    try:
        found.start()
        yield found
    finally:
        found.stop()

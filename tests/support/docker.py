"""A real Docker engine for tests, with images built for them.  `.ci/run` starts the engine where there is none."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import docker
import pytest

from runproj.containers import home_mark
from support.alone import away
from support.ports import free_port
from support.program import Cli


class Docker:
    """The engine, seen from outside of runproj."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.client = docker.from_env(timeout=600)
        self.made: list[str] = []

    def image(self, *lines: str, files: dict[str, str] | None = None) -> str:
        """Build an image from the base image and further Dockerfile lines; returns a name that only this test knows.

        So is the image itself: the engine would give the same one to other tests that build the same lines, and who removes it by
        its id removes that of all.
        """
        mark = uuid.uuid4().hex[:12]
        name = f"runproj-test-{mark}:1"
        stages = [f"FROM {self.base}", *lines]
        last = max(number for number, line in enumerate(stages) if line.startswith("FROM "))
        stages.insert(last + 1, f"LABEL runproj.test={mark}")
        content = {"Dockerfile": "\n".join(stages), **(files or {})}
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for path, text in content.items():
                entry = tarfile.TarInfo(path)
                entry.size = len(text.encode())
                archive.addfile(entry, io.BytesIO(text.encode()))
        buffer.seek(0)
        self.client.images.build(fileobj=buffer, custom_context=True, tag=name, rm=True)
        self.made.append(name)
        return name

    def small(self, which: str) -> str:
        """An image of 2 MB with `cat`, `sh` that is no bash, and a file `/which`."""
        collect = "RUN mkdir -p /out/bin && cp /bin/cat /out/bin && cp /bin/dash /out/bin/sh && "
        collect += "cp -L --parents $(ldd /bin/cat /bin/dash | grep -o '/[^ :]*' | sort -u | grep /lib) /out"
        lines = (collect, "FROM scratch", "COPY --from=0 /out /", "COPY which /which")
        return self.image(*lines, files={"which": which})

    def containers(self, cli: Cli) -> list[str]:
        """Names of the containers of a home, running or not."""
        label = f"runproj.home={home_mark(Path(cli.env['RUNPROJ_HOME']))}"
        return sorted(
            found.name for found in self.client.containers.list(all=True, ignore_removed=True, filters={"label": label})
        )

    def gone(self, cli: Cli, seconds: float = 0) -> None:
        """Wait until a home has no container any more."""
        deadline = time.monotonic() + seconds
        while left := self.containers(cli):
            assert time.monotonic() < deadline, f"still there: {left}"
            time.sleep(0.05)

    def forget(self, repository: str) -> None:
        """Remove all images of a repository, or of all repositories of a registry, whatever they are called."""
        for image in self.client.api.images():
            names = [*(image["RepoTags"] or ()), *(image["RepoDigests"] or ())]
            if any(name.startswith((f"{repository}:", f"{repository}@", f"{repository}/")) for name in names):
                with suppress(docker.errors.ImageNotFound):
                    self.client.images.remove(image["Id"], force=True)

    def close(self) -> None:
        for name in self.made:
            with suppress(docker.errors.ImageNotFound):
                self.client.images.remove(name, force=True)
        self.client.close()


class FarEngine:
    """An engine in a mount namespace of its own, which sees none of the tests' folders: as one on another machine, by TLS.

    url, certificates: where it is;  client: of the docker SDK;  address: of this machine, as its containers reach it.
    """

    def __init__(self, folder: Path, hidden: Path, socket_folder: Path) -> None:
        port = free_port()
        self.url, self.certificates = f"tcp://localhost:{port}", folder / "tls"
        self.address, self._bridge = f"172.29.{port % 250}.1", f"far{port}"
        self.socket = socket_folder / "s"
        self._folder, self._hidden = folder, hidden
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        _keys(self.certificates)
        tls = [
            f"--tls{name}={self.certificates}/{file}.pem" for name, file in (("cacert", "ca"), ("cert", "cert"), ("key", "key"))
        ]
        own = [
            f"--{name}={self.socket.parent}/{file}" for name, file in (("data-root", "d"), ("exec-root", "x"), ("pidfile", "p"))
        ]
        command = ["dockerd", "--host", self.url, "--tlsverify", *tls, "--host", f"unix://{self.socket}", *own]
        subprocess.run(["ip", "link", "add", self._bridge, "type", "bridge"], check=True)
        subprocess.run(["ip", "address", "add", f"{self.address}/24", "dev", self._bridge], check=True)
        command += [f"--bridge={self._bridge}", "--iptables=false"]  # without a bridge of its own it would remove that of others
        with (self.socket.parent / "log").open("wb") as log:
            self._process = subprocess.Popen([*away(self._folder, self._hidden), *command], stdout=log, stderr=log)
        deadline = time.monotonic() + 300
        while True:
            with suppress(Exception):
                self.client = docker.DockerClient(f"unix://{self.socket}", timeout=120)
                self.client.ping()
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.socket.parent / "log").read_text())
            time.sleep(0.2)

    def take(self, name: str) -> None:
        """Have an image of the other engine."""
        with suppress(docker.errors.ImageNotFound):
            self.client.images.get(name)
            return
        near = docker.from_env(timeout=600)
        list(self.client.images.load(near.images.get(name).save(named=name)))
        near.close()

    def stop(self) -> None:
        if self._process is not None:
            self.client.close()
            self._process.terminate()
            self._process.wait(60)
            subprocess.run(["ip", "link", "delete", self._bridge], check=False)
        for left in Path("/proc/self/mounts").read_text().splitlines():
            if (place := left.split()[1]).startswith(f"{self.socket.parent}/"):
                subprocess.run(["umount", "-l", place], check=False)
        shutil.rmtree(self.socket.parent, ignore_errors=True)


def _keys(folder: Path) -> None:
    """A key and a certificate that is its own authority, for server and client."""
    folder.mkdir()
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run(made, check=True, capture_output=True)
    shutil.copy(folder / "cert.pem", folder / "ca.pem")


@pytest.fixture(scope="session")
def far_engine(base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarEngine]:
    """It has the base image."""
    found = FarEngine(tmp_path_factory.mktemp("far"), tmp_path_factory.getbasetemp(), Path(tempfile.mkdtemp(prefix="far-")))
    try:
        found.start()
        found.take(base_image)
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="session")
def base_image() -> str:
    """The base image's name; it is made where there is none."""
    script = Path(__file__).with_name("base_image.sh")
    folder = os.environ.get("RUNPROJ_TEST_CACHE") or Path(__file__).parents[2] / ".ci" / "cache"
    made = subprocess.run([script, folder], stdout=subprocess.PIPE, text=True, check=True)
    return made.stdout.strip()


@pytest.fixture(scope="module")
def engine(base_image: str) -> Iterator[Docker]:
    found = Docker(base_image)
    yield found
    found.close()


@contextmanager
def registry_at(folder: Path, password: str = "") -> Iterator[str]:
    """An image registry of our own, with a user `somebody` if there is a password; gives its address."""
    address = f"127.0.0.1:{free_port()}"
    (folder / "config.yml").write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: '{folder}/data'}}}}\nhttp: {{addr: '{address}'}}\n"
        "log: {accesslog: {disabled: true}, level: error}\n"
        + (f"auth: {{htpasswd: {{realm: test, path: '{folder}/users'}}}}\n" if password else "")
    )
    if password:  # perl is on every Debian, and its crypt knows the one hash that the registry takes
        script = "print crypt($ARGV[0], q{$2b$05$abcdefghijklmnopqrstuu})"
        hashed = subprocess.run(["perl", "-e", script, password], check=True, capture_output=True, text=True).stdout
        (folder / "users").write_text(f"somebody:{hashed}\n")
    (folder / "data").mkdir()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", folder / "config.yml"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 300
        while True:
            with suppress(ConnectionError), socket.create_connection(address.split(":"), timeout=5):
                break
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        yield address
    finally:
        process.kill()
        process.wait()

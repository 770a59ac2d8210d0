"""A real Kubernetes of one node for tests: control plane and kubelet of our own, containers on the Docker engine.

Version 1.20, built by `kubernetes_build.sh`; everything on loopback, on ports that nobody else has.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.docker import Docker
from support.ports import free_port
from support.waiting import until

PAUSE = "runproj/pause:3.2"
IMAGE = "runproj-kubernetes-test:1"
PYTHON = "/opt/runproj/bin/python"
ROOT = Path(__file__).parents[2]
CHAINS = {
    "filter": ("KUBE-FIREWALL", "KUBE-KUBELET-CANARY"),
    "nat": ("KUBE-POSTROUTING", "KUBE-MARK-MASQ", "KUBE-MARK-DROP", "KUBE-KUBELET-CANARY"),
    "mangle": ("KUBE-KUBELET-CANARY",),
}
"""What kubelet makes in the tables of iptables, and leaves there."""
JUMPS = (
    ("filter", "INPUT", ("-j", "KUBE-FIREWALL")),
    ("filter", "OUTPUT", ("-j", "KUBE-FIREWALL")),
    ("nat", "POSTROUTING", ("-m", "comment", "--comment", "kubernetes postrouting rules", "-j", "KUBE-POSTROUTING")),
)


class Kubernetes:
    """The cluster.  `environ`: variables with which it is reached."""

    def __init__(self, folder: Path, programs: Path) -> None:
        missing = [name for name in ("etcd", "openssl", "iptables") if shutil.which(name, path=_path()) is None]
        if missing:
            raise RuntimeError(f"missing: {', '.join(missing)} (Debian: etcd-server openssl iptables)")
        self.folder, self._programs = folder, programs
        self._token = secrets.token_hex(16)
        self._etcd, self._peer, self._port, self._kubelet = (free_port() for _ in range(4))
        self.environ = {"KUBECONFIG": str(folder / "kubeconfig")}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        self._make_keys()
        self._make_files()
        self._run("etcd", *self._etcd_words())
        self.start_server()
        kubeconfig = f"--kubeconfig={self.folder}/kubeconfig"
        both = [kubeconfig, "--bind-address=127.0.0.1", "--port=0", "--leader-elect=false"]
        both += [f"--{what}-kubeconfig={self.folder}/kubeconfig" for what in ("authentication", "authorization")]
        ports = [f"--secure-port={free_port()}" for _ in range(2)]
        keys = [f"--service-account-private-key-file={self.folder}/sa.key", f"--root-ca-file={self.folder}/server.crt"]
        gates = ["--use-service-account-credentials=true", "--feature-gates=TTLAfterFinished=true"]
        self._run("kube-controller-manager", *both, ports[0], *keys, *gates, f"--cert-dir={self.folder}/controllers")
        self._run("kube-scheduler", *both, ports[1], f"--cert-dir={self.folder}/scheduler")
        self.start_node()

    def start_server(self) -> None:
        """Start the API server, and wait until it answers."""
        made = self.folder
        words = [f"--etcd-servers=http://127.0.0.1:{self._etcd}", "--bind-address=127.0.0.1", f"--secure-port={self._port}"]
        words += [f"--tls-cert-file={made}/server.crt", f"--tls-private-key-file={made}/server.key", f"--cert-dir={made}/api"]
        words += [f"--token-auth-file={made}/tokens.csv", "--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/24"]
        words += ["--service-account-issuer=https://kubernetes.default.svc", f"--service-account-signing-key-file={made}/sa.key"]
        words += [f"--service-account-key-file={made}/sa.pub", "--kubelet-preferred-address-types=Hostname"]
        words += ["--allow-privileged=true", "--feature-gates=TTLAfterFinished=true", "--advertise-address=192.0.2.1"]
        self._run("kube-apiserver", *words)
        self._until(lambda: self.get("/readyz") == "ok", "an API server that answers")

    def stop_server(self) -> None:
        """Kill the API server; what runs goes on."""
        self._kill("kube-apiserver")

    def start_node(self) -> None:
        """Start the kubelet, and wait until its node is ready."""
        words = [f"--config={self.folder}/kubelet.json", f"--kubeconfig={self.folder}/kubeconfig"]
        words += ["--hostname-override=localhost"]
        words += [f"--root-dir={self.folder}/kubelet", f"--cert-dir={self.folder}/kubelet/pki", "--container-runtime=docker"]
        words += [f"--docker-endpoint={os.environ.get('DOCKER_HOST', 'unix:///var/run/docker.sock')}", "--network-plugin="]
        words += [f"--pod-infra-container-image={PAUSE}", "--runtime-cgroups=/"]
        self._run("kubelet", *words)
        self._until(self._ready, "a node that is ready")

    def stop_node(self) -> None:
        """Kill the kubelet; its containers go on."""
        self._kill("kubelet")

    def _ready(self) -> bool:
        found = self.get("/api/v1/nodes/localhost")
        conditions = json.loads(found)["status"]["conditions"] if found else []
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def delete(self, target: str) -> None:
        """Have the API server delete something."""
        assert self.get(target, "DELETE")

    def get(self, target: str, method: str = "GET") -> str:
        """What the API server says; nothing where it does not answer, or there is no such thing."""
        head = {"Authorization": f"Bearer {self._token}"}
        request = urllib.request.Request(f"https://127.0.0.1:{self._port}{target}", headers=head, method=method)
        trusting = ssl.create_default_context(cafile=str(self.folder / "server.crt"))
        try:
            with urllib.request.urlopen(request, timeout=60, context=trusting) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, OSError):
            return ""

    def listed(self, kind: str, group: str = "/api/v1") -> list[dict[str, Any]]:
        """All of a kind in the default namespace."""
        said: list[str] = []
        until(lambda: said.append(self.get(f"{group}/namespaces/default/{kind}")) or said[-1])
        found: list[dict[str, Any]] = json.loads(said[-1])["items"]
        return found

    def _etcd_words(self) -> list[str]:
        client, peer = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{self._peer}"
        urls = [f"--listen-client-urls={client}", f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}"]
        urls += [f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}"]
        return [f"--data-dir={self.folder}/etcd", *urls]

    def _make_keys(self) -> None:
        def openssl(*words: str) -> None:
            subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)

        openssl("genrsa", "-out", "sa.key", "2048")
        openssl("rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")
        names = "subjectAltName=DNS:localhost,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:10.96.0.1"
        subject = ["-subj", "/CN=kubernetes", "-addext", names]
        kind = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"]
        openssl("req", *kind, "-keyout", "server.key", "-out", "server.crt", *subject)

    def _make_files(self) -> None:
        (self.folder / "tokens.csv").write_text(f"{self._token},admin,admin,system:masters\n")
        cluster = {"server": f"https://127.0.0.1:{self._port}", "certificate-authority": str(self.folder / "server.crt")}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": self._token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin", "namespace": "default"}}],
            "current-context": "test",
        }
        (self.folder / "kubeconfig").write_text(json.dumps(config))
        kubelet = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "127.0.0.1",
            "port": self._kubelet,
            "readOnlyPort": 0,
            "healthzPort": 0,
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "0.5%", "imagefs.available": "0.5%"},
            "imageGCHighThresholdPercent": 100,
            "syncFrequency": "5s",
            "nodeStatusUpdateFrequency": "5s",
        }
        (self.folder / "kubelet.json").write_text(json.dumps(kubelet))

    def _run(self, program: str, *arguments: str) -> None:
        ours = self._programs / program
        command = [str(ours) if ours.exists() else program, *arguments]
        environ = {**os.environ, "PATH": _path()}
        with (self.folder / f"{program}.log").open("ab") as log:
            self._processes[program] = subprocess.Popen(
                command, cwd=self.folder, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _kill(self, program: str) -> None:
        process = self._processes.pop(program)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def _until(self, condition: Any, what: str) -> None:
        deadline = time.monotonic() + 300
        while not condition():
            dead = [name for name, process in self._processes.items() if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                name = dead[0] if dead else "kubelet"
                said = (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]
                raise RuntimeError(f"Kubernetes did not start: no {what}; {name}:\n{said}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End everything, and take away what kubelet leaves behind."""
        for program in reversed(list(self._processes)):
            self._kill(program)
        labels = ["--filter", "label=io.kubernetes.pod.namespace"]
        left = subprocess.run(["docker", "ps", "-aq", *labels], capture_output=True, text=True).stdout.split()
        if left:
            subprocess.run(["docker", "rm", "-f", *left], capture_output=True)
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if (place := line.split()[1]).startswith(str(self.folder)):
                subprocess.run(["umount", place], capture_output=True)
        for path in sorted(Path("/sys/fs/cgroup").glob("**/kubepods*/**/"), reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir()
        for table, chain, rule in JUMPS:
            _iptables(table, "-D", chain, *rule)
        for table, chains in CHAINS.items():
            for word in ("-F", "-X"):
                for chain in chains:
                    _iptables(table, word, chain)


def built() -> Path:
    """The folder with the cluster's programs; they are built where they are missing."""
    cache = os.environ.get("RUNPROJ_TEST_CACHE") or ROOT / ".ci" / "cache"
    made = subprocess.run([Path(__file__).with_name("kubernetes_build.sh"), cache], stdout=subprocess.PIPE, text=True, check=True)
    return Path(made.stdout.strip())


@pytest.fixture(scope="session")
def kubernetes(base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    """A Kubernetes that runs, with the image `IMAGE`, which has runproj at `PYTHON`."""
    programs = built()
    folder = tmp_path_factory.mktemp("kubernetes")
    docker = Docker(base_image)
    _make_image(docker, folder / "site")
    pause = folder / "pause"
    pause.mkdir()
    shutil.copy(programs / "pause", pause)
    (pause / "Dockerfile").write_text('FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n')
    docker.client.images.build(path=str(pause), tag=PAUSE, rm=True)
    found = Kubernetes(folder, programs)
    try:
        found.start()
        yield found
    finally:
        found.stop()
        docker.forget(IMAGE.partition(":")[0])
        docker.close()


def _make_image(docker: Docker, site: Path) -> None:
    """The base image with this runproj in an environment of its own, as a team would make it."""
    uv = Path(sys.executable).with_name("uv")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    subprocess.run([uv, "pip", "install", "-q", "--target", site / "site", "-p", sys.executable, ROOT], check=True)
    lines = [f"FROM {docker.base}", "RUN python3 -m venv --without-pip /opt/runproj"]
    lines.append(f"COPY site /opt/runproj/lib/python{version}/site-packages")
    (site / "Dockerfile").write_text("\n".join(lines) + "\n")
    docker.client.images.build(path=str(site), tag=IMAGE, rm=True)


def pod_with(home: Path) -> dict[str, Any]:
    """Options of pods that see a home folder, and the Python that runs the tests, where it is no part of Debian."""
    found: dict[str, Any] = {"image": IMAGE, "python": PYTHON, "volume": {"hostPath": {"path": str(home)}}}
    if sys.base_prefix != "/usr":
        mount = {"name": "python", "mountPath": sys.base_prefix, "readOnly": True}
        volume = {"name": "python", "hostPath": {"path": sys.base_prefix}}
        found["template"] = {"volumes": [volume], "containers": [{"name": "runproj", "volumeMounts": [mount]}]}
    return found


def _iptables(table: str, *words: str) -> None:
    subprocess.run(["iptables", "-t", table, *words], capture_output=True, env={**os.environ, "PATH": _path()})


def _path() -> str:
    return os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


if __name__ == "__main__":  # to have it built before tests want it
    print(built())

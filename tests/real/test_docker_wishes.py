"""What a project asks of the machine, what its user gives it, and what an image may lack: with a real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Repository
from support.docker import Docker
from support.program import Cli

pytestmark = pytest.mark.slow

SHOW = """
import json, os, socket, sys
def reach(address):
    try:
        socket.create_connection(address, 2).close()
    except OSError as error:
        return False
    return True
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
print(json.dumps({
    "capabilities": [int(status["CapEff"], 16), int(status["CapBnd"], 16)],
    "no_new_privileges": status["NoNewPrivs"],
    "environ": {name: value for name, value in os.environ.items() if name.startswith("WANT_")},
    "host_secret": os.environ.get("HOST_SECRET"),
    "mounted": {path: sorted(os.listdir(path)) if os.path.isdir(path) else None for path in ("/inside", "/outside", "/typed")},
    "writable": [os.access(path, os.W_OK) for path in ("/inside", "/outside", "/typed")],
    "shm": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize,
    "networks": sorted(os.listdir("/sys/class/net")),
}))
"""


def seen(cli: Cli, url: str, *arguments: str) -> dict:
    result = cli("run", url, *arguments)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_what_reaches_beyond_the_container_needs_trust(cli: Cli, repository: Repository, engine: Docker, tmp_path: Path) -> None:
    outside = tmp_path / "of the host"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    asks = {
        "image": engine.base,
        "volumes": ["$(pwd)/data:/inside", f"{outside}:/outside:ro"],
        "environment": ["WANT_HOST", ["WANT_SET", "a b; $(id)"]],
    }
    repository.commit(
        {
            "MLproject": json.dumps({"docker_env": asks, "entry_points": {"main": {"command": "python3 show.py"}}}),
            "show.py": SHOW,
            "data/x": "x",
        }
    )
    cli.env |= {"WANT_HOST": "from the host", "HOST_SECRET": "not asked for"}
    for verb in ("plan", "run"):
        refused = cli(verb, repository.url)
        assert refused.returncode == 125
        assert f"{outside} of this machine, to read, as /outside" in refused.stderr
        assert "your variable WANT_HOST" in refused.stderr
        assert "/inside" not in refused.stderr
        assert "WANT_SET" not in refused.stderr
        assert "--trust" in refused.stderr
    found = seen(cli, repository.url, "--trust")
    assert found["environ"] == {"WANT_HOST": "from the host", "WANT_SET": "a b; $(id)"}
    assert found["mounted"] == {"/inside": ["x"], "/outside": ["secret"], "/typed": None}
    assert found["host_secret"] is None
    assert (found["capabilities"], found["no_new_privileges"]) == ([0, 0], "1")
    assert seen(cli, repository.url) == found, "it is remembered"
    assert json.loads(cli("rerun", "@last").stdout) == found
    repository.commit({"data/y": "y"})
    assert cli("run", repository.url).returncode == 125, "for that commit"
    del cli.env["WANT_HOST"]
    missing = cli("run", repository.url, "--trust")
    assert missing.returncode == 125
    assert "variables that are not set: WANT_HOST" in missing.stderr


def test_links_defaults_networks_and_users_need_it_too(cli: Cli, repository: Repository, engine: Docker) -> None:
    repository.write({"show.py": SHOW})
    (repository.path / "link").symlink_to("/etc")
    ask = {"image": engine.base, "volumes": ["./link:/etc2", "cache:/cache"], "network": "host", "user": "4321"}
    main = {
        "command": ["python3", "show.py"],
        "params": {"data": {"type": "path", "default": "/etc/hostname"}},
        "inputs": {"a": "/etc/group", "b": "file:///etc/shells", "c": "show.py", "d": "https://example.org/x"},
    }
    repository.commit({"runproj.yaml": json.dumps({"environment": {"docker": ask}, "entry_points": {"main": main}})})
    refused = cli("plan", str(repository.path))
    assert refused.returncode == 125
    for words in (
        "/etc of this machine, to write, as /etc2",
        "the engine's volume 'cache'",
        "the network 'host'",
        "to be user '4321'",
        "/etc/hostname of this machine, to read, as the parameter 'data'",
        "/etc/group of this machine, to read, as the input 'a'",
        "/etc/shells of this machine, to read, as the input 'b'",
    ):
        assert words in refused.stderr
    assert "the input 'c'" not in refused.stderr
    assert "the input 'd'" not in refused.stderr


def test_what_the_user_gives_needs_no_trust(cli: Cli, repository: Repository, engine: Docker, tmp_path: Path) -> None:
    given = tmp_path / "given: $(x)".replace(":", "")
    given.mkdir()
    project = {
        "environment": {"docker": {"image": engine.base, "shm_size": "32m"}},
        "entry_points": {"main": {"command": "python3 show.py"}},
    }
    repository.commit({"runproj.yaml": json.dumps(project), "show.py": SHOW})
    cli.env["WANT_HOST"] = "h"
    options = [
        f"-Avolume={given}:/typed:ro",
        "-A",
        "env=WANT_HOST",
        "-A",
        "e=WANT_SET=a=b",
        "-A",
        "network=none",
        "-Acap-add=CHOWN",
    ]
    found = seen(cli, repository.url, *options)
    assert found["environ"] == {"WANT_HOST": "h", "WANT_SET": "a=b"}
    assert found["mounted"]["/typed"] == []
    assert found["capabilities"][1] == 1, "CHOWN, within the bounds of what it may have"
    assert (found["networks"], found["shm"]) == (["lo"], 32 << 20)
    assert json.loads(cli("rerun", "@last").stdout) == found
    assert "Did you mean 'network'" in cli("run", repository.url, "-A", "netwrk=none").stderr


LOG = "import runproj\nrunproj.log_metric('m', 2.0)\nrunproj.log_text('words', 'a/b.txt')\n"


def test_without_a_network_the_spool_is_sent_afterwards(cli: Cli, repository: Repository, engine: Docker) -> None:
    ask = {"environment": {"docker": {"image": engine.base, "network": "none"}}}
    repository.commit({"runproj.yaml": json.dumps(ask), "log.py": LOG})
    result = cli("run", repository.url, "-e", "log.py")
    assert result.returncode == 0, result.stderr
    assert "The container has no network" in result.stderr
    shown = cli.json("runs", "show", "@last")
    assert [(metric["key"], metric["value"]) for metric in shown["run"]["metrics"]] == [("m", 2.0)]
    assert any("no network" in note for note in shown["plan"]["notes"])
    assert "a/b.txt" in [artifact["path"] for artifact in shown["artifacts"]]


def test_gpus_are_asked_for_and_their_lack_is_said(cli: Cli, repository: Repository, engine: Docker) -> None:
    project = {"environment": {"docker": {"image": engine.base, "gpus": "all"}}, "entry_points": {"main": {"command": ["true"]}}}
    repository.commit({"runproj.yaml": json.dumps(project)})
    result = cli("run", repository.url)
    assert result.returncode == 125
    assert "The engine has no way to give a container GPUs" in result.stderr
    assert "NVIDIA container toolkit" in result.stderr
    assert cli.json("runs", "show", "@last")["run"]["status"] == "FAILED"
    engine.gone(cli)


def test_an_image_without_bash(cli: Cli, repository: Repository, engine: Docker) -> None:
    image = engine.small("which\n")
    points = {
        "main": {"params": {"file": "string"}, "command": "cat {file} | cat && cat {file}"},
        "bash": {"command": "[[ -e /which ]] && cat /which"},
        "words": {"command": ["cat", "/which"]},
    }
    repository.commit({"runproj.yaml": json.dumps({"environment": {"docker": image}, "entry_points": points})})
    result = cli("run", repository.url, "-P", "file=/which")
    assert (result.returncode, result.stdout) == (0, "which\nwhich\n"), result.stderr
    assert cli("run", repository.url, "-e", "words").stdout == "which\n"
    refused = cli("run", repository.url, "-e", "bash")
    assert refused.returncode == 125
    assert "The command is written for bash, which is not in the image" in refused.stderr
    assert "'[['" in refused.stderr
    engine.gone(cli)


def test_inputs_and_fetched_paths_are_there(cli: Cli, repository: Repository, engine: Docker, tmp_path: Path) -> None:
    fetched = tmp_path / "fetched file"
    fetched.write_text("fetched\n")
    points = {
        "main": {
            "params": {"data": "path"},
            "inputs": {"table": "data/table.csv"},
            "outputs": ["out/*"],
            "command": "mkdir out && cat {data} $RUNPROJ_INPUT_TABLE > out/both; cat out/both",
        }
    }
    repository.commit(
        {
            "runproj.yaml": json.dumps({"environment": {"docker": engine.base}, "entry_points": points}),
            "data/table.csv": "table\n",
        }
    )
    result = cli("run", repository.url, "-P", f"data=file://{fetched}".replace(" ", "%20"))
    assert (result.returncode, result.stdout) == (0, "fetched\ntable\n"), result.stderr
    shown = cli.json("runs", "show", "@last")
    assert "out/both" in [artifact["path"] for artifact in shown["artifacts"]]


def test_proxies_and_certificates_go_in_on_request(cli: Cli, repository: Repository, engine: Docker, tmp_path: Path) -> None:
    bundle = tmp_path / "own.pem"
    bundle.write_text("certificates\n")
    project = {"environment": {"docker": engine.small("")}, "entry_points": {"main": {"command": ["cat", "/proc/self/environ"]}}}
    repository.commit({"runproj.yaml": json.dumps(project)})
    cli.env |= {"HTTPS_PROXY": "http://proxy:1", "no_proxy": "here"}
    bare = cli("run", repository.url)
    assert "proxy:1" not in bare.stdout
    assert "ca.pem" not in bare.stdout
    given = dict(
        pair.split("=", 1) for pair in cli("run", repository.url, "-Aproxy", f"-Aca={bundle}").stdout.split("\0") if pair
    )
    assert given["HTTPS_PROXY"] == "http://proxy:1"
    assert given["no_proxy"].startswith("here,")
    assert given["NO_PROXY"] == given["no_proxy"].removeprefix("here,")
    assert given["SSL_CERT_FILE"] == given["REQUESTS_CA_BUNDLE"] == "/runproj/ca.pem"
    assert "no such file of certificates" in cli("run", repository.url, "-Aca=/nonexistent").stderr


@pytest.mark.network
def test_mlflow_itself_logs_into_the_run(cli: Cli, repository: Repository, engine: Docker, tmp_path: Path) -> None:
    """MLflow's client for the Python of the image, in a folder that the container is given."""
    packages = tmp_path / "packages"
    cache = Path(os.environ.get("RUNPROJ_TEST_CACHE") or Path(__file__).parents[2] / ".ci" / "cache") / "uv"
    install = ["uv", "pip", "install", "-q", "--target", packages, "--python-version", "3.11", "--only-binary", ":all:"]
    platform = ["--python-platform", f"{os.uname().machine}-manylinux_2_28", "mlflow-skinny==2.22.1"]
    subprocess.run([sys.executable, "-m", *install, *platform], check=True, env={**os.environ, "UV_CACHE_DIR": str(cache)})
    main = (
        "import mlflow\n"
        "with mlflow.start_run() as run:\n"
        "    mlflow.log_param('p', 'v')\n"
        "    mlflow.log_metric('m', 1.25)\n"
        "    mlflow.log_text('text', 'notes/a.txt')\n"
        "    print(run.info.run_id)\n"
    )
    project = {"environment": {"docker": engine.base}, "entry_points": {"main": {"command": ["python3", "main.py"]}}}
    repository.commit({"runproj.yaml": json.dumps(project), "main.py": main})
    result = cli("run", repository.url, f"-Avolume={packages}:/packages:ro", "-Aenv=PYTHONPATH=/packages")
    assert result.returncode == 0, result.stderr
    shown = cli.json("runs", "show", "@last")
    assert shown["run"]["id"] in result.stdout.split()
    assert [(param["key"], param["value"]) for param in shown["run"]["params"]] == [("p", "v")]
    assert [(metric["key"], metric["value"]) for metric in shown["run"]["metrics"]] == [("m", 1.25)]
    assert "notes/a.txt" in [artifact["path"] for artifact in shown["artifacts"]]

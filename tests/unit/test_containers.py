"""What a container is given, as the engine is told it: rights, places, variables, devices, limits."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from runproj.containers import Box, Identity
from runproj.core.call import BoundValue, Call
from runproj.core.container import options
from runproj.core.environment import DockerSpec, EnvLock, EnvManager, EnvPlace, ImageFacts, ImagePin
from runproj.core.plan import Plan
from runproj.core.project import Command, EntryPoint, ParameterType, Resources
from runproj.core.source import Checkout, Pin, PinKind
from runproj.engine import Engine, EngineAway, Where, find, unreachable
from runproj.errors import BackendError, StartError
from runproj.launch import explain


def box(folder: Path, asked: DockerSpec, *typed: str, resources: Resources | None = None) -> Box:
    pin = Pin(PinKind.GIT, "file:///p", "t" * 40, "c" * 40, subdirectory="sub dir")
    lock = EnvLock(EnvManager.DOCKER, EnvPlace.IMAGE, "d", "o", "linux/amd64", image=ImagePin("sha256:1", "sha256:1", asked))
    command = Command(argv=("true",))
    plan = Plan(pin, Call("main", command), lock, EntryPoint("main", command, resources=resources or Resources()), "p")
    (folder / "run/tree/sub dir").mkdir(parents=True)
    image = ImageFacts("sha256:1", (("PATH", "/bin"), ("PYTHONPATH", "/own"), ("PYTHONUNBUFFERED", "0")))
    owner = Identity("r" * 32, "token", folder / "home")
    return Box(owner, plan, image, Checkout(pin, folder / "run/tree"), folder / "run", Where(), options(typed))


def told(made: Box, folder: Path, **variables: str) -> dict:
    order = json.loads(made.order(("a", "b c"), made.environment(variables), folder / "client"))
    assert order["name"] == f"runproj-{'r' * 32}"
    return order["body"]


def test_what_every_container_gets(isolated: Path) -> None:
    made = box(isolated, DockerSpec("x"))
    body = told(made, isolated, GIVEN="a\nb")
    assert (body["Image"], body["Cmd"], body["WorkingDir"]) == ("sha256:1", ["a", "b c"], "/runproj/code/sub dir")
    assert body["User"] == f"{os.getuid()}:{os.getgid()}"
    assert body["Labels"]["runproj.run"] == "r" * 32
    host = body["HostConfig"]
    assert (host["Init"], host["CapDrop"], host["SecurityOpt"]) == (True, ["ALL"], ["no-new-privileges"])
    assert host["NetworkMode"] == "bridge"
    assert {(mount["Source"], mount["Target"], mount["ReadOnly"]) for mount in host["Mounts"]} == {
        (str(isolated / "run/tree"), "/runproj/code", False),
        (str(isolated / "run/home"), "/runproj/home", False),
        (str(isolated / "run/spool"), "/runproj/spool", False),
        (str(isolated / "client"), "/runproj/client", True),
    }
    environ = dict(pair.split("=", 1) for pair in body["Env"])
    assert environ["GIVEN"] == "a\nb"
    assert environ["PYTHONPATH"] == "/runproj/client:/own"
    assert environ["PYTHONUNBUFFERED"] == "0", "the image's own word"
    given = told(made, isolated, PYTHONPATH="/given")["Env"]
    assert "PYTHONPATH=/runproj/client:/given" in given
    assert environ["HOME"] == "/runproj/home"
    assert not {"Privileged", "Binds", "DeviceRequests"} & set(host)


@pytest.mark.parametrize(
    ("asked", "needed", "request_"),
    [
        ("all", None, {"Count": -1}),
        ("2", None, {"Count": 2}),
        ("device=0,GPU-1", None, {"DeviceIDs": ["0", "GPU-1"]}),
        ("", 3, {"Count": 3}),
    ],
)
def test_gpus_are_rendered(isolated: Path, asked: str, needed: int | None, request_: dict) -> None:
    body = told(box(isolated, DockerSpec("x", gpus=asked), resources=Resources(gpus=needed)), isolated)
    assert body["HostConfig"]["DeviceRequests"] == [{"Driver": "", "Capabilities": [["gpu"]], **request_}]


def test_gpus_that_a_job_was_given_are_those_of_its_container(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPROJ_JOB_GPUS", "1,3")
    made = box(isolated, DockerSpec("x", gpus="all"), "gpus=2", resources=Resources(gpus=2))
    assert [one["DeviceIDs"] for one in told(made, isolated)["HostConfig"]["DeviceRequests"]] == [["1", "3"]]
    monkeypatch.setenv("RUNPROJ_JOB_GPUS", "")
    assert told(made, isolated)["HostConfig"]["DeviceRequests"] == []


def test_what_is_asked_for_and_what_is_typed(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "from here")
    asked = DockerSpec(
        "x", ("$(pwd)/new folder:/data", "named:/n:ro"), (("HOST", None), ("A", "1")), shm_size="1g", network="none", user="5:6"
    )
    made = box(isolated, asked, "env=A=2", "cap-add=CHOWN", "user=7", "memory=1g", resources=Resources(cpus=1.5, memory="2GB"))
    body = told(made, isolated)
    host = body["HostConfig"]
    assert (host["ShmSize"], host["NetworkMode"], body["User"]) == (1 << 30, "none", "7")
    assert (host["NanoCpus"], host["Memory"], host["MemorySwap"]) == (1_500_000_000, 1 << 30, 1 << 30)
    assert (host["CapDrop"], host["CapAdd"]) == (["ALL"], ["CHOWN"])
    assert {"HOST=from here", "A=2"} <= set(body["Env"])
    mounts = {mount["Target"]: mount for mount in host["Mounts"]}
    assert mounts["/data"]["Source"] == str(isolated / "run/tree/sub dir/new folder")
    assert (isolated / "run/tree/sub dir/new folder").is_dir()
    assert (mounts["/n"]["Type"], mounts["/n"]["ReadOnly"]) == ("volume", True)
    assert made.address == "127.0.0.1"
    monkeypatch.delenv("HOST")
    with pytest.raises(StartError, match="HOST"):
        told(made, isolated)


def test_what_is_no_text_cannot_be_told(isolated: Path) -> None:
    made = box(isolated, DockerSpec("x"))
    assert "A=ü\n" in told(made, isolated, A="ü\n")["Env"]
    with pytest.raises(StartError, match="cannot be told"):
        made.order(("a", os.fsdecode(b"\xff")), {}, isolated / "client")


def test_paths_are_where_the_container_has_them(isolated: Path) -> None:
    made = box(isolated, DockerSpec("x"))
    outside = isolated / "données: $(x)"
    outside.write_text("")
    fetched = isolated / "run/params/param_1/f"
    fetched.parent.mkdir(parents=True)
    fetched.write_text("")
    values = [("a", str(outside)), ("b", str(fetched)), ("c", "data/in project"), ("d", "/not/there")]
    call = Call("main", Command(argv=("x",)), tuple(BoundValue(name, text, ParameterType.PATH) for name, text in values))
    found = {value.name: value.resolved or value.value for value in made.call(call).values}
    expected = {
        "a": "/runproj/paths/0/données: $(x)",
        "b": "/runproj/params/param_1/f",
        "c": "data/in project",
        "d": "/not/there",
    }
    assert found == expected
    mounts = {mount["Target"]: mount for mount in told(made, isolated)["HostConfig"]["Mounts"]}
    assert (mounts[expected["a"]]["Source"], mounts[expected["a"]]["ReadOnly"]) == (str(outside), True)
    assert mounts["/runproj/params"]["ReadOnly"]
    given = made.variables({"RUNPROJ_INPUT_T": f"{isolated}/run/tree/sub dir/t.csv"})
    assert given == {"RUNPROJ_INPUT_T": "/runproj/code/sub dir/t.csv"}


def test_the_engines_words_become_ours(isolated: Path) -> None:
    plan = box(isolated, DockerSpec("some/image:1")).plan
    words = 'could not select device driver "" with capabilities: [[gpu]]'
    assert "NVIDIA container toolkit" in explain(words, plan).fix
    assert explain("No such image: sha256:1", plan).what == "The image some/image:1 is gone"
    assert "does not exist" in explain("invalid mount config: bind source path does not exist: /x", plan).what
    lost = "what the command left could not be fetched: lstat /code: no such file or directory"
    assert "did not come back" in explain(lost, plan).what
    assert explain("something else", plan).why == "something else"


def test_a_socket_that_is_not_for_everybody(tmp_path: Path) -> None:
    listening = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(listening))
        server.listen()
        listening.chmod(0)
        where = Where(f"unix://{listening}")
        os.seteuid(1234)
        try:
            with pytest.raises(EngineAway) as away:
                Engine(where).get("/version")
        finally:
            os.seteuid(0)
    said = unreachable(where, away.value)
    assert said.what == "The Docker engine does not let you in"
    assert "usermod -aG docker" in said.fix


def test_the_engine_is_found_as_docker_finds_it(tmp_path: Path) -> None:
    assert find({"HOME": str(tmp_path)}).url == "unix:///var/run/docker.sock"
    assert find({"DOCKER_HOST": "unix:///x"}).url == "unix:///x"
    with_tls = find({"DOCKER_HOST": "tcp://h:1", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/keys"})
    assert (with_tls.url, with_tls.certificates) == ("tcp://h:1", "/keys")
    config = tmp_path / ".docker/config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"currentContext": "mine"}))
    with pytest.raises(BackendError, match="'mine'"):
        find({"HOME": str(tmp_path)})
    import hashlib

    meta = config.parent / "contexts/meta" / hashlib.sha256(b"mine").hexdigest()
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": "mine", "Endpoints": {"docker": {"Host": "unix:///mine.sock"}}}))
    assert find({"HOME": str(tmp_path)}).url == "unix:///mine.sock"
    assert find({"HOME": str(tmp_path), "DOCKER_CONTEXT": "default"}).url == "unix:///var/run/docker.sock"
    (meta / "meta.json").write_text(json.dumps({"Endpoints": {"docker": {"Host": "ssh://far"}}}))
    with pytest.raises(BackendError, match="ssh://far"):
        find({"HOME": str(tmp_path)})


def test_an_engine_that_vanishes_without_a_word_is_noticed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        engine = Engine(Where(f"tcp://127.0.0.1:{server.getsockname()[1]}"))
        with engine.connect(5) as link:
            assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            patience = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            patience += link.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) * link.getsockopt(
                socket.IPPROTO_TCP, socket.TCP_KEEPCNT
            )
    assert patience == 90

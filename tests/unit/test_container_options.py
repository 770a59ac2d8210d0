"""`-A` and volumes: the words of `docker run`, without a shell."""

from __future__ import annotations

import pytest

from runproj.core.container import Volume, gpus, options, size, volume
from runproj.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data:/data", Volume("/data", "/data")),
        ("/data:/data:ro", Volume("/data", "/data", writable=False)),
        ("/data:/data:z,ro", Volume("/data", "/data", writable=False)),
        ("$(pwd):/code", Volume(".", "/code")),
        ("${PWD}/data:/data", Volume("./data", "/data")),
        ("$PWD/../data:/data", Volume("./../data", "/data")),
        ("`pwd`/data:/data:rw", Volume("./data", "/data")),
        ("~/.aws:/aws", Volume("~/.aws", "/aws")),
        ("cache:/cache", Volume("cache", "/cache")),
    ],
)
def test_volumes_of_a_project(text: str, expected: Volume) -> None:
    assert volume(text) == expected
    assert expected.named is (text == "cache:/cache")


@pytest.mark.parametrize("text", ["", "/data", "/data:data", ":/x", "$HOME/x:/x", "$(id):/x", "/a/`id`:/x", "$(pwd)x$(id):/y"])
def test_what_is_no_volume(text: str) -> None:
    with pytest.raises(UsageError):
        volume(text)


def test_what_the_user_typed_has_been_through_a_shell() -> None:
    assert volume("/a $(b):/x", typed=True) == Volume("/a $(b)", "/x")


def test_options_become_the_engines_words() -> None:
    given = [
        "v=/a b:/c:ro",
        "e=A=x=y",
        "env=B",
        "--gpus=2",
        "m=64m",
        "cpus=1.5",
        "network=none",
        "privileged",
        "cap-add=SYS_PTRACE",
    ]
    given += ["ulimit=nofile=10:20", "device=/dev/fuse", "tmpfs=/scratch:size=1m", "entrypoint=", "user=1:2", "label=a=b"]
    found = options([*given, "shm-size=1g", "add-host=x:1.2.3.4", "pids-limit=100", "read-only=false"])
    assert found.volumes == [Volume("/a b", "/c", writable=False)]
    assert found.environment == [("A", "x=y"), ("B", None)]
    assert (found.network, found.labels) == ("none", {"a": "b"})
    assert found.config == {"Entrypoint": [], "User": "1:2"}
    assert found.host == {
        "DeviceRequests": [{"Driver": "", "Capabilities": [["gpu"]], "Count": 2}],
        "Memory": 64 << 20,
        "MemorySwap": 64 << 20,
        "NanoCpus": 1_500_000_000,
        "Privileged": True,
        "CapAdd": ["SYS_PTRACE"],
        "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}],
        "Devices": [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rwm"}],
        "Tmpfs": {"/scratch": "size=1m"},
        "ShmSize": 1 << 30,
        "ExtraHosts": ["x:1.2.3.4"],
        "PidsLimit": 100,
        "ReadonlyRootfs": False,
    }


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("netwrk=none", "Did you mean 'network'"),
        ("rm", "what runproj itself decides"),
        ("name=x", "what runproj itself decides"),
        ("memory", "needs a value"),
        ("memory=lots", "not a size"),
        ("cpus=two", "not a number"),
        ("gpus=some", "which GPUs"),
        ("ulimit=nofile", "not a limit"),
        ("label=runproj.run=x", "runproj's own"),
    ],
)
def test_what_has_no_meaning_is_refused(given: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        options([given])
    assert words in str(refused.value)


def test_requests_for_gpus() -> None:
    assert gpus("all")["Count"] == -1
    assert gpus('"device=0,GPU-1a2b"')["DeviceIDs"] == ["0", "GPU-1a2b"]


def test_sizes_are_dockers() -> None:
    assert [size(text) for text in ("1", "1k", "1.5m", "2GB", "1Gi")] == [1, 1024, 1_572_864, 2 << 30, 1 << 30]

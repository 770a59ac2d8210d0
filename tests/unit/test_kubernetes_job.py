"""The Job of a run, as a document: valid for clusters of today, merged with what the user wants; and what clusters say of it."""

from __future__ import annotations

import base64
from typing import Any

import kubernetes_validate
import pytest

from runproj.backends import kubernetes_job as documents
from runproj.core.backend import Demand, JobState
from runproj.core.environment import DockerSpec
from runproj.core.project import Resources

OPTIONS = {
    "image": "registry/team/runproj@sha256:" + "0" * 64,
    "volume": {"persistentVolumeClaim": {"claimName": "shared"}},
    "service_account": "trainer",
    "env_secrets": ["wandb"],
    "variables": {"NCCL_DEBUG": "INFO"},
    "ttl": "1h",
    "template": {
        "nodeSelector": {"disk": "ssd"},
        "volumes": [{"name": "data", "hostPath": {"path": "/data"}}],
        "containers": [
            {"name": "runproj", "volumeMounts": [{"name": "data", "mountPath": "/data"}], "env": [{"name": "A", "value": "b"}]},
            {"name": "beside", "image": "beside:1"},
        ],
    },
}
NEEDS = Resources(cpus=1.5, memory="2GB", gpus=2, time="1h", partition="team-queue")


def wanted(options: dict[str, Any], *, home: str = "/home/it's", parcel: int = 0) -> documents.Wanted:
    demand = Demand(resources=NEEDS, options=options)
    return documents.Wanted("a" * 32, 'a "name"\n', demand, 10.0, f"{home}/parcels/a", home, parcel)


@pytest.mark.parametrize("version", ["1.28", "1.33"])
def test_a_job_is_valid_and_has_what_was_wanted(version: str) -> None:
    job = documents.manifest(wanted(OPTIONS))
    kubernetes_validate.validate(job, version, strict=True)
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert (spec["backoffLimit"], spec["ttlSecondsAfterFinished"], spec["suspend"]) == (0, 3600, True)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-queue"
    assert (pod["restartPolicy"], pod["activeDeadlineSeconds"], pod["nodeSelector"]) == ("Never", 3730, {"disk": "ssd"})
    ours, beside = pod["containers"]
    assert beside == {"name": "beside", "image": "beside:1"}
    assert ours["env"] == [{"name": "A", "value": "b"}, {"name": "NCCL_DEBUG", "value": "INFO"}]
    assert [mount["name"] for mount in ours["volumeMounts"]] == ["data", "runproj-home"]
    assert ours["resources"] == {
        "requests": {"cpu": "1.5", "memory": "2000000000"},
        "limits": {"memory": "2000000000", "nvidia.com/gpu": "2"},
    }
    assert "=$$(($$(date +%s) + 3600))\n" in ours["command"][2]  # `$$` is how Kubernetes is told `$`


def test_a_whole_job_can_be_the_template() -> None:
    pod_spec = {"spec": {"priorityClassName": "low"}}
    template = {"metadata": {"annotations": {"team": "ml"}}, "spec": {"backoffLimit": 7, "template": pod_spec}}
    job = documents.manifest(wanted({"image": "x", "template": template}, home="", parcel=2))
    kubernetes_validate.validate(job, "1.33", strict=True)
    assert job["metadata"]["annotations"]["team"] == "ml"
    assert (job["spec"]["backoffLimit"], job["spec"]["template"]["spec"]["priorityClassName"]) == (0, "low")


def test_a_parcel_is_in_as_many_secrets_as_it_needs() -> None:
    content = bytes(range(256)) * 6000
    made = documents.secrets("b" * 32, content, {"name": "job", "uid": "u"})
    for secret in made:
        kubernetes_validate.validate(secret, "1.33", strict=True)
    pieces = sorted((name, base64.b64decode(text)) for secret in made for name, text in secret["data"].items())
    assert b"".join(piece for _, piece in pieces) == content
    assert len(made) == 3


Document = dict[str, Any]


def pod(phase: str, *, reason: str = "", waiting: Document | None = None, ended: Document | None = None) -> Document:
    state = {"waiting": waiting} if waiting else {"terminated": ended} if ended else {"running": {}}
    message = "the node was low on memory" if reason else ""
    containers = [{"name": "runproj", "state": state}]
    return {
        "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"phase": phase, "reason": reason, "message": message, "containerStatuses": containers},
    }


@pytest.mark.parametrize(
    ("document", "state", "words"),
    [
        (pod("Running"), JobState.RUNNING, ""),
        (pod("Failed", reason="Evicted"), JobState.ENDED, "evicted: the node was low on memory"),
        (pod("Failed", reason="DeadlineExceeded"), JobState.ENDED, "timed out"),
        (pod("Failed", ended={"exitCode": 137, "reason": "OOMKilled"}), JobState.ENDED, "out of memory"),
        (pod("Failed", ended={"exitCode": 127, "reason": "ContainerCannotRun", "message": "no sh"}), JobState.ENDED, "no sh"),
        (pod("Failed", ended={"exitCode": 3, "reason": "Error"}), JobState.ENDED, None),
        (pod("Failed"), JobState.ENDED, None),
        (
            pod("Pending", waiting={"reason": "ImagePullBackOff", "message": "it is unknown"}),
            JobState.ENDED,
            "it is unknown",
        ),
        (pod("Pending", waiting={"reason": "ErrImagePull", "message": "i/o timeout"}), JobState.PENDING, "i/o timeout"),
        (pod("Pending", waiting={"reason": "CreateContainerConfigError", "message": "no secret"}), JobState.ENDED, "no secret"),
        (pod("Unknown"), JobState.UNKNOWN, ""),
    ],
)
def test_what_a_pod_says(document: dict[str, Any], state: JobState, words: str | None) -> None:
    status = documents.status_of({}, document, now=1_767_225_700.0)
    assert status.state is state
    if words is None:
        assert status.outcome is None
    else:
        assert words in (status.outcome.reason if status.outcome else status.note)


def test_an_executor_that_has_ended_beside_a_container_that_goes_on() -> None:
    document = pod("Running", ended={"exitCode": 137, "reason": "OOMKilled"})
    assert documents.status_of({}, document, now=0.0).state is JobState.RUNNING  # the pod's own phase is about to change
    document["status"]["containerStatuses"].append({"name": "beside", "state": {"running": {}}})
    status = documents.status_of({}, document, now=0.0)
    assert status.outcome is not None and "out of memory" in status.outcome.reason


def test_what_a_job_without_a_pod_says() -> None:
    def job(**status: Any) -> dict[str, Any]:
        return {"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"suspend": True}, "status": status}

    failed = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}
    begin = 1_767_225_600.0
    assert documents.status_of(None, None, begin).state is JobState.LOST
    assert documents.status_of(job(), None, begin + 5).note == "its queue has not let it go yet"
    late = documents.status_of(job(), None, begin + 11, patience=10)
    assert late.state is JobState.ENDED and "waited longer" in late.outcome.reason
    ended = documents.status_of(job(conditions=[failed]), None, begin)
    assert ended.outcome.exit_code == 124
    assert documents.status_of(job(conditions=[{"type": "Complete", "status": "True"}]), None, begin).state is JobState.ENDED


def test_events_and_logs_are_read() -> None:
    def event(name: str, message: str, when: str) -> Document:
        return {"involvedObject": {"name": name}, "reason": "Failed", "message": message, "lastTimestamp": when, "metadata": {}}

    found = documents.warnings([event("a", "late", "2026-01-02T00:00:00Z"), event("a", "early", "2026-01-01T00:00:00Z")])
    assert found == {"a": "Failed: late"}
    first = b"2026-01-01T00:00:00.1Z one\n2026-01-01T00:00:00.2Z two\n"
    assert documents.lines_after(first, b"") == (b"one\ntwo\n", b"2026-01-01T00:00:00.2Z")
    again = first + b"2026-01-01T00:00:01.0Z three\n"
    assert documents.lines_after(again, b"2026-01-01T00:00:00.2Z") == (b"three\n", b"2026-01-01T00:00:01.0Z")
    assert documents.lines_after(b"", b"x") == (b"", b"x")
    stamps = b"2026-01-01T02:00:00.123456789+02:00", b"2026-01-01T00:00:00.2Z", b"2026-01-01T00:00:00Z"
    seconds = ["2026-01-01T02:00:00+02:00", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"]
    assert [documents.second_of(stamp) for stamp in stamps] == seconds


def test_variables_of_an_image_are_what_the_project_says() -> None:
    """The user's own may refer to others, as everywhere on Kubernetes."""
    asked = DockerSpec(environment=(("PATTERN", "$$a$(HOME)"), ("OWN", "x")))
    demand = Demand(options=OPTIONS | {"variables": {"OWN": "$(PATTERN)"}}, asked=asked)
    job = documents.manifest(documents.Wanted("a" * 32, "a", demand, 10.0, parcel=1, inside="image@sha256:0"))
    found = {one["name"]: one["value"] for one in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert (found["PATTERN"], found["OWN"]) == ("$$$$a$$(HOME)", "$(PATTERN)")


def test_an_init_container_that_fails_says_why() -> None:
    document = pod("Failed")
    document["status"] |= {"message": "", "containerStatuses": []}
    failed = {"exitCode": 1, "reason": "Error", "message": "no such repository"}
    document["status"]["initContainerStatuses"] = [{"name": "fetch", "state": {"terminated": failed}}]
    status = documents.status_of({}, document, now=0.0)
    assert "no such repository" in status.outcome.reason

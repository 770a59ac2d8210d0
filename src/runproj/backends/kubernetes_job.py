"""A Kubernetes Job for a run, and what the cluster says of it: pure functions of documents as the API has them.

Source: the reference of `batch/v1` Job and `v1` Pod (1.20 to 1.37); reasons of the kubelet were seen on 1.20.
"""

from __future__ import annotations

import base64
import math
import re
import shlex
import signal
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from runproj.backends import kubernetes_inside as inside
from runproj.core.backend import Demand, Engine, JobState, JobStatus
from runproj.core.outcome import Outcome
from runproj.core.run import RunStatus
from runproj.core.values import dataclass
from runproj.settings import parse_duration, parse_size

Document = dict[str, Any]

MANAGED = "app.kubernetes.io/managed-by=runproj"
RUN = "runproj.io/run-id"
CONTAINER = "runproj"
PART = 700_000
"""Bytes of a parcel in one Secret, which may have 1 MiB in base64."""
MOST_PARTS = 32
PARCEL = "/runproj/parcel"
_DAY = 86_400
_SENDING = 600
"""Seconds after which nobody is taken to be still making the Secrets of a job."""
_MARGIN = 120
"""Seconds that the cluster's deadline is after the executor's own: it counts the pulling of images too."""
_HOPELESS = ("InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_PULLING = ("ErrImagePull", "ImagePullBackOff")
_FOR_GOOD = ("not found", "unknown", "denied", "unauthorized", "no such", "does not exist", "invalid reference")


@dataclass(frozen=True)
class Wanted:
    """What a job is made of.

    home:   where the pod sees runproj's home, by the volume that is named; empty where it does not.
    parcel: in how many Secrets what the executor needs comes, where the home is not seen;
    inside: the image that is the project's environment, by digest: the executor runs in it, with a copy of runproj that another
            container has put there.
    """

    run_id: str
    name: str
    demand: Demand
    grace: float
    folder: str = ""
    home: str = ""
    parcel: int = 0
    inside: str = ""


def job_name(run_id: str) -> str:
    """Of the job of a run: a DNS label, and the same each time, so that a run has one job."""
    return f"runproj-{run_id}"


def secret_name(run_id: str, part: int) -> str:
    """Of a piece of its parcel."""
    return f"{job_name(run_id)}-{part}"


def manifest(wanted: Wanted) -> Document:
    """The Job.  What the user's template says stands where it does not contradict what the run needs."""
    demand, options = wanted.demand, wanted.demand.options
    labels = {"app.kubernetes.io/managed-by": "runproj", RUN: wanted.run_id}
    pod: Document = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": math.ceil(wanted.grace) + 20,
        "automountServiceAccountToken": bool(options.get("service_account")),
        "containers": [_container(wanted)],
        "volumes": _volumes(wanted),
        **({"initContainers": [_preparing(wanted)]} if wanted.inside else {}),
    }
    if demand.resources.time:
        pod["activeDeadlineSeconds"] = math.ceil(parse_duration(demand.resources.time) + wanted.grace) + _MARGIN
    if account := options.get("service_account"):
        pod["serviceAccountName"] = str(account)
    ours: Document = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(wanted.run_id),
            "labels": {**labels, **_queue(demand)},
            "annotations": {"runproj.io/name": wanted.name},
        },
        "spec": {
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",  # since 1.28: one that is deleted by others has not two pods for a while
            "completions": 1,
            "parallelism": 1,
            "ttlSecondsAfterFinished": math.ceil(parse_duration(str(options["ttl"]))) if "ttl" in options else _DAY,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    if demand.resources.partition:
        ours["spec"]["suspend"] = True  # Kueue lets it go when there is room
    template = options.get("template", {})
    whole = template if "spec" in template else {"spec": {"template": {"spec": template}}} if template else {}
    found: Document = merged(whole, ours)
    return found


def _queue(demand: Demand) -> dict[str, str]:
    return {"kueue.x-k8s.io/queue-name": demand.resources.partition} if demand.resources.partition else {}


def _container(wanted: Wanted) -> Document:
    demand, options = wanted.demand, wanted.demand.options
    folder = wanted.folder if wanted.home else ""
    words = inside.words(folder) if wanted.inside else ("sh", "-c", script(wanted))
    found: Document = {
        "name": CONTAINER,
        "image": wanted.inside or str(options["image"]),
        "command": [literal(word) for word in words],
        "resources": resources(demand),
        "volumeMounts": _mounts(wanted),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **(inside.security(demand) if wanted.inside else {}),
    }
    if names := options.get("env_secrets"):
        found["envFrom"] = [{"secretRef": {"name": str(name)}} for name in names]
    own = inside.variables(demand, folder) if wanted.inside else {}  # as the project has them; the user's may refer to others
    variables = {name: literal(str(value)) for name, value in own.items()} | options.get("variables", {})
    if variables:
        found["env"] = [{"name": name, "value": str(value)} for name, value in variables.items()]
    return found


def _preparing(wanted: Wanted) -> Document:
    """The container that lays out the code, and a runproj for an image that has none, before the other one begins."""
    script = inside.preparation(wanted.demand, wanted.folder if wanted.home else "", PARCEL)
    return {
        "name": "prepare",
        "image": str(wanted.demand.options["image"]),
        "command": ["sh", "-c", literal(script)],
        "volumeMounts": _mounts(wanted),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def literal(word: str) -> str:
    """Kubernetes takes $$ for $, and $(…) for a variable of its own."""
    return word.replace("$", "$$")


def script(wanted: Wanted) -> str:
    """What the container runs: the executor, as its first process, so that it is told when the pod is to end."""
    options = wanted.demand.options
    python = shlex.quote(str(options.get("python", "python3")))
    lines = []
    if wanted.demand.resources.time:
        seconds = math.ceil(parse_duration(wanted.demand.resources.time))
        lines.append(f"export {Engine.ENDS}=$(($(date +%s) + {seconds}))")
    if wanted.home:
        lines.append(f"exec {python} -P -m runproj execute-parcel {shlex.quote(wanted.folder)}")
    else:
        lines += [
            'folder=$(mktemp -d) && cd "$folder" || exit 97',
            f"cat {PARCEL}/part-* >parcel.zip && {python} -m zipfile -e parcel.zip parcel && rm parcel.zip || exit 97",
            f"exec {python} -P -m runproj execute-parcel parcel --tee",
        ]
    return "\n".join(lines)


def resources(demand: Demand) -> Document:
    """Requests, and limits of what can only be limited: memory and GPUs."""
    needs = demand.resources
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}
    if needs.cpus:
        requests["cpu"] = f"{needs.cpus:g}"
    if needs.memory:
        requests["memory"] = limits["memory"] = str(parse_size(needs.memory))
    if needs.gpus:
        limits[str(demand.options.get("gpu", "nvidia.com/gpu"))] = str(needs.gpus)
    return {name: values for name, values in (("requests", requests), ("limits", limits)) if values}


def _volumes(wanted: Wanted) -> list[Document]:
    shared = inside.volumes(wanted.demand) if wanted.inside else []
    if wanted.home:
        return [{"name": "runproj-home", **wanted.demand.options["volume"]}, *shared]
    sources = [{"secret": {"name": secret_name(wanted.run_id, part)}} for part in range(wanted.parcel)]
    return [{"name": "runproj-parcel", "projected": {"sources": sources, "defaultMode": 0o400}}, *shared]


def _mounts(wanted: Wanted) -> list[Document]:
    shared = inside.mounts(wanted.demand) if wanted.inside else []
    if wanted.home:
        return [{"name": "runproj-home", "mountPath": wanted.home}, *shared]
    return [{"name": "runproj-parcel", "mountPath": PARCEL, "readOnly": True}, *shared]


def secrets(run_id: str, content: bytes, owner: Mapping[str, Any]) -> list[Document]:
    """The parcel in pieces that Secrets can hold; they go with the job that owns them."""
    pieces = [content[begin : begin + PART] for begin in range(0, len(content), PART)]
    reference = {"apiVersion": "batch/v1", "kind": "Job", "name": owner["name"], "uid": owner["uid"]}
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": secret_name(run_id, part),
                "labels": {"app.kubernetes.io/managed-by": "runproj", RUN: run_id},
                "ownerReferences": [reference],
            },
            "data": {f"part-{part:03d}": base64.b64encode(piece).decode()},
        }
        for part, piece in enumerate(pieces)
    ]


def merged(template: Any, ours: Any) -> Any:
    """Two documents as one: tables are merged, lists of named things by their names, and what is ours comes before the rest."""
    if isinstance(template, Mapping) and isinstance(ours, Mapping):
        return {name: merged(template.get(name), ours.get(name)) for name in dict.fromkeys([*template, *ours])}
    if isinstance(template, list) and isinstance(ours, list):
        if not _named(template) or not _named(ours):
            return [*template, *(item for item in ours if item not in template)]
        mine = {item["name"]: item for item in ours}
        kept = [merged(item, mine.pop(item["name"], None)) for item in template]
        return [*kept, *mine.values()]
    return template if ours is None else ours


def _named(items: Sequence[Any]) -> bool:
    return all(isinstance(item, Mapping) and "name" in item for item in items)


# -- what the cluster says


def status_of(job: Document | None, pod: Document | None, now: float, patience: float | None = None) -> JobStatus:
    """The state of a job by its document and that of its pod, None where there is none.

    patience: seconds that it may wait before it is given up;  now: seconds since 1970.
    """
    if pod is not None:
        return _of_pod(pod, now, patience)
    if job is None:
        return JobStatus(JobState.LOST)
    for condition in job.get("status", {}).get("conditions") or ():
        if condition.get("type") == "Failed" and condition.get("status") == "True":
            return JobStatus(JobState.ENDED, outcome=_failed(condition.get("reason", ""), condition.get("message", "")))
        if condition.get("type") == "Complete" and condition.get("status") == "True":
            return JobStatus(JobState.ENDED)
    return _waiting(job, "its queue has not let it go yet" if job["spec"].get("suspend") else "it has no pod yet", now, patience)


def _of_pod(pod: Document, now: float, patience: float | None) -> JobStatus:
    state = pod.get("status", {})
    phase = state.get("phase")
    ended = next(iter(_states(pod, "terminated")), None)
    if phase in ("Succeeded", "Failed") or (ended and (phase != "Running" or goes_on(pod))):
        return JobStatus(JobState.ENDED, outcome=_ending(state, ended))
    if phase == "Running":
        return JobStatus(JobState.RUNNING)
    if phase == "Unknown":
        return JobStatus(JobState.UNKNOWN)
    for waiting in _states(pod, "waiting"):
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        for_good = reason in _PULLING and any(word in message.lower() for word in _FOR_GOOD)
        if reason in _HOPELESS or for_good:
            return JobStatus(JobState.ENDED, outcome=_failed(reason, message))
        if reason in _PULLING:
            return _waiting(pod, f"{reason}: {message}", now, patience)
    for condition in state.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return _waiting(pod, f"{condition.get('reason', '')}: {condition.get('message', '')}", now, patience)
    return _waiting(pod, "", now, patience)


def _states(pod: Document, which: str) -> list[Document]:
    """The states of that kind of the pod's containers: init containers first."""
    state = pod.get("status", {})
    every = [*(state.get("initContainerStatuses") or ()), *(state.get("containerStatuses") or ())]
    if which == "terminated":
        every = [one for one in every if one.get("name") == CONTAINER]
    return [one["state"][which] for one in every if one.get("state", {}).get(which)]


def _waiting(document: Document, note: str, now: float, patience: float | None) -> JobStatus:
    if patience is not None and _age(document, now) > patience:
        return JobStatus(JobState.ENDED, outcome=_failed("", f"it waited longer than it may: {note}"))
    return JobStatus(JobState.PENDING, note=note.strip(": "))


def _age(document: Document, now: float) -> float:
    """Seconds since it was made."""
    since = document["metadata"].get("creationTimestamp")
    return now - datetime.fromisoformat(since.replace("Z", "+00:00")).timestamp() if since else 0.0


def cut_short(pod: Document | None, warning: str, now: float) -> Outcome | None:
    """How a job has ended whose pod waits for Secrets that nobody makes any more; None where it may still get them."""
    if pod and 'secret "runproj-' in warning and "not found" in warning and _age(pod, now) > _SENDING:
        return _failed("", "whoever submitted it was killed before all of it was on the cluster")
    return None


def _ending(state: Document, ended: Document | None) -> Outcome | None:
    """How a pod ended, where the cluster knows more than the executor; None where it does not."""
    if state.get("reason") in ("Evicted", "DeadlineExceeded", "Preempting", "NodeLost", "Shutdown", "NodeShutdown", "Terminated"):
        return _failed(state["reason"], state.get("message", ""))
    if ended is None:
        first = [one["state"]["terminated"] for one in state.get("initContainerStatuses") or () if one["state"].get("terminated")]
        said = next((one.get("message") or one.get("reason", "") for one in first if one.get("exitCode")), "")
        said = state.get("message", "") or said
        return _failed(state.get("reason", "") or "lost", said) if said or state.get("reason") else None
    reason = ended.get("reason", "")
    if reason == "OOMKilled":
        return Outcome(RunStatus.FAILED, 128 + signal.SIGKILL, "out of memory: it used more than its container may")
    if reason in ("ContainerCannotRun", "StartError"):
        return _failed(reason, ended.get("message", ""))
    return None


def _failed(reason: str, message: str) -> Outcome:
    words = {"DeadlineExceeded": "timed out: the cluster ended it", "Evicted": "evicted", "": "could not start"}
    said = re.sub(r"\s+", " ", message).strip()[:500]
    code = 124 if reason == "DeadlineExceeded" else 1
    return Outcome(RunStatus.FAILED, code, f"{words.get(reason, reason)}{f': {said}' if said else ''}")


def warnings(events: Sequence[Document]) -> dict[str, str]:
    """Name of a job or pod → the last thing that went wrong with it."""
    found = sorted(events, key=lambda one: one.get("lastTimestamp") or one["metadata"].get("creationTimestamp") or "")
    return {one["involvedObject"].get("name", ""): f"{one.get('reason', '')}: {one.get('message', '')}" for one in found}


def lines_after(text: bytes, last: bytes) -> tuple[bytes, bytes]:
    """What of a log with timestamps is later than `last`, without them; and the time of its last line.

    A log is asked for from a second on, and so has lines that were seen.
    """
    fresh = []
    for line in text.splitlines(keepends=True):
        stamp, _, said = line.partition(b" ")
        if stamp > last:
            fresh.append(said)
            newest = stamp
    return b"".join(fresh), newest if fresh else last


def second_of(stamp: bytes) -> str:
    """The second that a time of a log is in.  Times are in the time zone of the pod's node, and say which that is."""
    return re.sub(r"\.\d+", "", stamp.decode())


def image_of(pod: Document | None) -> str:
    """What the executor's container really runs, by digest, or by the id that its node's engine has for it."""
    every = (pod or {}).get("status", {}).get("containerStatuses") or ()
    found = next((str(one.get("imageID", "")) for one in every if one.get("name") == CONTAINER), "")
    return found.rpartition("://")[2]


def exit_of(pod: Document | None) -> tuple[int, str] | None:
    """Exit code and last words of the executor's container, where it has ended."""
    ended = next(iter(_states(pod, "terminated")), None) if pod else None
    return (int(ended.get("exitCode", 0)), str(ended.get("message", ""))) if ended else None


def never_ran(pod: Document | None) -> bool:
    """Whether no executor of it has begun."""
    return pod is None or pod.get("status", {}).get("phase") == "Pending"


def goes_on(pod: Document | None) -> bool:
    """Whether a container that a template has beside the executor's runs."""
    every = (pod or {}).get("status", {}).get("containerStatuses") or ()
    return any(one.get("name") != CONTAINER and one.get("state", {}).get("running") is not None for one in every)

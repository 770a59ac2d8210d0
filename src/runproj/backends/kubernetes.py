"""Kubernetes: an executor is a Job of one pod, in an image that has runproj.

Where a volume holds this home, the executor writes there.  Else what it needs comes in Secrets that the job owns, and the record
goes to the tracking server.  A job and its pod are removed by the cluster a day after their end.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from runproj.backends import kubernetes_inside, kubernetes_push
from runproj.backends import kubernetes_job as documents
from runproj.backends.catalogue import BackendContext
from runproj.backends.shared import details_of, follow_log, has_ended
from runproj.codec import to_json
from runproj.core.backend import Demand, Job, JobHandle, JobState, JobStatus, Option, OptionKind
from runproj.core.environment import EnvPlace
from runproj.errors import BackendError
from runproj.files import atomic_write
from runproj.packing import folded
from runproj.settings import parse_duration

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

_TICKET = "kubernetes.json"
_TIMEOUT = 30.0
_POLL = 1.0
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class KubernetesBackend:
    """See `runproj.core.backend.Backend`."""

    elsewhere = True
    batches = False
    images = True
    options = (
        Option("image", OptionKind.TEXT, "The image that pods run; it has runproj."),
        Option("python", OptionKind.TEXT, "The Python in it that has runproj; python3 by default."),
        Option("volume", OptionKind.TABLE, "A volume that holds this home: {persistentVolumeClaim: {claimName: …}}."),
        Option("registry", OptionKind.TEXT, "Where environments are pushed to that are images of this machine: registry/team."),
        Option("context", OptionKind.TEXT, "Context of the kubeconfig."),
        Option("namespace", OptionKind.TEXT, "Namespace; that of the context, or of the pod that runproj runs in, by default."),
        Option("service_account", OptionKind.TEXT, "Service account of the pod."),
        Option("env_secrets", OptionKind.LIST, "Names of Secrets whose entries the job gets as variables."),
        Option("variables", OptionKind.TABLE, "Variables that the job gets."),
        Option("gpu", OptionKind.TEXT, "What a GPU is called here; nvidia.com/gpu by default."),
        Option("wait", OptionKind.TEXT, "How long a job may wait for its pod to run before it is given up: 30m."),
        Option("ttl", OptionKind.TEXT, "When the cluster removes a job after its end; 1d by default."),
        Option("template", OptionKind.TABLE, "A pod's spec, or a whole Job, that ours is merged into."),
    )

    def __init__(self, context: BackendContext) -> None:
        self._home, self._environ = context.home, context.environ
        self._server = context.tracking_uri.startswith(("http://", "https://"))
        self._clients: dict[str, ApiClient] = {}
        self._pushed: dict[str, str] = {}
        self._tell = context.tell

    # -- before

    def check(self, demand: Demand) -> None:
        if demand.place is EnvPlace.IMAGE:
            self._check_image(demand)
        if not demand.options.get("image"):
            fix = 'Name one that has runproj: --backend-config \'{"image": "registry/team/runproj@sha256:…"}\'.'
            raise BackendError("Which image are the pods to run?", fix=fix)
        if not demand.options.get("volume") and not self._server:
            raise BackendError(
                "What is recorded in a pod needs a way home",
                fix="Name a `volume` that holds this home, or set RUNPROJ_TRACKING_URI to a server that pods reach.",
            )
        if (demand.resources.nodes or 1) > 1:
            raise BackendError("A job of Kubernetes has one pod here", fix="Ask for one node.")
        place = self._place(demand.options)
        self._call("GET", f"/apis/batch/v1/namespaces/{place['namespace']}/jobs?limit=1", place)

    @staticmethod
    def _check_image(demand: Demand) -> None:
        if demand.arguments:
            fix = "Say it in a `template`, or with the options of the backend."
            raise BackendError(f"-A {demand.arguments[0]} is for containers of this machine's Docker engine", fix=fix)
        if demand.asked:
            kubernetes_inside.check(demand.asked)
        if "@" not in demand.image and not demand.options.get("registry"):
            raise BackendError(
                "The project's image is in no registry, where the cluster could get it",
                why=f"Its id is {demand.image[:19]}; this machine's Docker engine has it.",
                fix='Push it and name it by that name; or have it pushed: --backend-config \'{"registry": "registry/team"}\'.',
            )

    def submit(self, jobs: Sequence[Job], *, at_once: int | None = None) -> Sequence[JobHandle]:
        del at_once  # nobody who looks at `batches` asks for it
        return [self._submit(job) for job in jobs]

    def _submit(self, job: Job) -> JobHandle:
        place = self._place(job.demand.options)
        shared = bool(job.demand.options.get("volume"))
        details = place | ({} if shared else {"far": "1"})
        if wait := job.demand.options.get("wait"):
            details["wait"] = str(parse_duration(str(wait)))
        content = b"" if shared else folded(job.parcel.complete(documents.PART * documents.MOST_PARTS))
        parts = -(-len(content) // documents.PART)
        if parts > documents.MOST_PARTS:
            most = documents.PART * documents.MOST_PARTS
            raise BackendError(
                f"What the job needs has {len(content) >> 20} MiB, and Secrets can hold {most >> 20} MiB",
                fix="Leave large files out of the repository, or name a `volume` that holds this home.",
            )
        home = str(self._home) if shared else ""
        inside = self._image(job.demand) if job.demand.place is EnvPlace.IMAGE else ""
        wanted = documents.Wanted(job.run_id, job.name, job.demand, job.grace, str(job.parcel.folder), home, parts, inside)
        manifest = documents.manifest(wanted)
        if len(manifest["spec"]["template"]["spec"]["containers"]) > 1:
            details["more"] = "1"
        atomic_write(job.parcel.folder / _TICKET, to_json(details))
        handle = JobHandle("kubernetes", documents.job_name(job.run_id), run_id=job.run_id, details=details)
        made = self._create(f"/apis/batch/v1/namespaces/{place['namespace']}/jobs", manifest, place)
        try:
            for secret in documents.secrets(job.run_id, content, made["metadata"]):
                self._create(f"/api/v1/namespaces/{place['namespace']}/secrets", secret, place)
        except BaseException:
            with contextlib.suppress(BackendError):
                self.cancel(handle)  # its pod would wait for them for ever
            raise
        return handle

    def _image(self, demand: Demand) -> str:
        """The image of an environment, by a digest that the cluster can get."""
        if "@" in demand.image:
            return demand.image
        if demand.image not in self._pushed:
            registry = str(demand.options["registry"])
            self._pushed[demand.image] = kubernetes_push.pushed(demand.image, registry, self._environ, self._tell)
        return self._pushed[demand.image]

    def _create(self, target: str, body: documents.Document, place: Mapping[str, str]) -> documents.Document:
        """Create something; what is there already is the same."""
        try:
            return self._call("POST", target, place, body)
        except _ConflictError:
            return self._call("GET", f"{target}/{body['metadata']['name']}", place)

    # -- while it runs

    def status(self, handles: Sequence[JobHandle]) -> Sequence[JobStatus]:
        seen: dict[str, tuple[dict[str, documents.Document], dict[str, documents.Document]]] = {}
        found = []
        warned: dict[str, dict[str, str]] = {}
        for handle in handles:
            details = self._details(handle)
            key = to_json({name: details.get(name, "") for name in ("context", "namespace")})
            if key not in seen:
                seen[key] = self._listed("jobs", "/apis/batch/v1", details), self._listed("pods", "/api/v1", details)
            jobs, pods = seen[key]
            job, pod = jobs.get(handle.run_id), pods.get(handle.run_id)
            status = self._status(handle, details, job, pod)
            if status.state is JobState.PENDING and (not status.note or pod is None):
                if key not in warned:
                    warned[key] = self._warnings(details)
                said = warned[key].get(((pod or job or {}).get("metadata") or {}).get("name", ""))
                status = replace(status, note=said or status.note)
                if outcome := documents.cut_short(pod, said or "", time.time()):
                    self.cancel(handle)
                    status = JobStatus(JobState.ENDED, outcome=outcome, seen=True)
            found.append(status)
        return found

    def _warnings(self, place: Mapping[str, str]) -> dict[str, str]:
        """What goes wrong with jobs and pods that do not get on: only events say it."""
        with contextlib.suppress(BackendError):  # not everybody may read them
            target = f"/api/v1/namespaces/{place['namespace']}/events?fieldSelector=type%3DWarning"
            return documents.warnings(self._call("GET", target, place)["items"])
        return {}

    def _listed(self, kind: str, group: str, place: Mapping[str, str]) -> dict[str, documents.Document]:
        """Run → its job or pod; all of them in one question."""
        target = f"{group}/namespaces/{place['namespace']}/{kind}?labelSelector={documents.MANAGED}"
        listed = self._call("GET", target, place)
        return {one["metadata"]["labels"].get(documents.RUN, ""): one for one in listed["items"]}

    def _status(
        self, handle: JobHandle, details: Mapping[str, str], job: documents.Document | None, pod: documents.Document | None
    ) -> JobStatus:
        patience = float(details["wait"]) if "wait" in details else None
        status = replace(documents.status_of(job, pod, time.time(), patience), image=documents.image_of(pod))
        if status.state is not JobState.ENDED:
            return status
        if status.outcome is not None and job is not None and documents.exit_of(pod) is None:
            self.cancel(handle)  # the cluster would go on trying for ever
            status = replace(status, seen=documents.never_ran(pod))  # and knows nothing of it when it is asked again
        ended = documents.exit_of(pod)
        if ended and documents.goes_on(pod):
            self.cancel(handle)  # what a template has beside the executor has nothing to do any more
        if status.outcome is None and ended:
            code, said = ended
            last = (said.strip().splitlines() or ["it recorded nothing"])[-1][:500]
            return replace(status, last=f"its executor ended with {code}: {last}")
        return status

    def cancel(self, handle: JobHandle) -> None:
        place = self._details(handle)
        target = f"/apis/batch/v1/namespaces/{place['namespace']}/jobs/{documents.job_name(handle.run_id)}"
        with contextlib.suppress(_MissingError):  # without the policy its pod would go on
            self._call("DELETE", target, place, {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"})

    def logs(self, handle: JobHandle, *, stream: str = "stdout", follow: bool = False) -> Iterator[bytes]:
        if not self._details(handle).get("far"):
            return follow_log(self._home, handle.run_id, stream, follow=follow)
        return self._told(handle, follow=follow) if stream == "stdout" else iter(())

    def _told(self, handle: JobHandle, *, follow: bool) -> Iterator[bytes]:
        """What the pod says, both streams in one.  Asked again and again: connections that follow a pod break without a word."""
        place, parcel, last = self._details(handle), self._parcel(handle), b""
        selector = f"labelSelector={documents.RUN}%3D{handle.run_id}"
        while True:
            more_may_come = follow and parcel.exists()
            with contextlib.suppress(BackendError):  # its container has not begun, or the cluster is away for a moment
                pods = self._call("GET", f"/api/v1/namespaces/{place['namespace']}/pods?{selector}", place)["items"]
                if pods:
                    more_may_come = more_may_come and documents.exit_of(pods[-1]) is None
                    new, last = documents.lines_after(self._log(pods[-1], place, last), last)
                    if new:
                        yield new
            if not more_may_come:
                return
            time.sleep(_POLL)

    def _log(self, pod: documents.Document, place: Mapping[str, str], last: bytes) -> bytes:
        """The log from the second of `last` on, each line with its time."""
        since = f"&sinceTime={quote(documents.second_of(last))}" if last else ""
        target = f"/api/v1/namespaces/{place['namespace']}/pods/{pod['metadata']['name']}/log"
        return self._bytes("GET", f"{target}?container={documents.CONTAINER}&timestamps=true{since}", place)

    def collect(self, handle: JobHandle, into: Path) -> None:
        """The executor wrote there itself, or to the tracking server; what a template has beside it ends with it."""
        if self._details(handle).get("more") and has_ended(into.parent):
            with contextlib.suppress(BackendError):
                self.cancel(handle)

    # -- the cluster

    def _parcel(self, handle: JobHandle) -> Path:
        return self._home / "parcels" / handle.run_id

    def _details(self, handle: JobHandle) -> Mapping[str, str]:
        return details_of(handle, self._parcel(handle) / _TICKET) or self._place({})

    def _place(self, options: Mapping[str, Any]) -> dict[str, str]:
        """Context and namespace of a job."""
        context = str(options.get("context", ""))
        namespace = str(options.get("namespace", "")) or self._usual_namespace(context)
        return {"context": context, "namespace": namespace}

    def _usual_namespace(self, context: str) -> str:
        _, config, broken = _library()
        with contextlib.suppress(*broken):
            library = config.kube_config  # its `list_kube_config_contexts` wants one to be the current one
            files = library.KubeConfigMerger(self._environ.get("KUBECONFIG", library.KUBE_CONFIG_DEFAULT_LOCATION))
            chosen = library.KubeConfigLoader(files.config, active_context=context or None).current_context
            return str(chosen["context"].get("namespace") or "default")
        with contextlib.suppress(OSError):  # in a pod
            return _OWN_NAMESPACE.read_text().strip() or "default"
        return "default"

    def _client(self, context: str) -> ApiClient:
        if context not in self._clients:
            self._clients[context] = self._connected(context)
        return self._clients[context]

    def _connected(self, context: str) -> ApiClient:
        client, config, broken = _library()
        try:
            return config.new_client_from_config(self._environ.get("KUBECONFIG"), context or None)
        except broken as error:
            why = str(error)
            if context:
                raise BackendError(f"There is no context {context!r}", why=why, fix="`kubectl config get-contexts`") from error
        try:  # in a pod
            settings = client.Configuration()
            config.load_incluster_config(settings)
            return client.ApiClient(settings)
        except config.ConfigException as error:
            fix = "Set KUBECONFIG, or have ~/.kube/config."
            raise BackendError("There is no kubeconfig that names a cluster", why=why, fix=fix) from error

    def _call(
        self, method: str, target: str, place: Mapping[str, str], body: Mapping[str, Any] | None = None
    ) -> documents.Document:
        said = self._bytes(method, target, place, body) or b"{}"
        try:
            found: documents.Document = json.loads(said)
        except ValueError as error:
            raise BackendError(
                f"What answers at {self._client(place['context']).configuration.host} is no cluster",
                why=f"It said: {said[:200].decode(errors='replace')}",
                fix="Look at `server` in the kubeconfig, and whether a proxy wants you to log in.",
            ) from error
        return found

    def _bytes(self, method: str, target: str, place: Mapping[str, str], body: Mapping[str, Any] | None = None) -> bytes:
        """The answer of the API server.  Raises `BackendError`."""
        api = self._client(place["context"])
        from urllib3.exceptions import HTTPError

        head = {"Content-Type": "application/json", "Accept": "application/json, text/plain, */*"}
        if auth := api.configuration.auth_settings().get("BearerToken"):
            head[auth["key"]] = auth["value"]
        data = None if body is None else json.dumps(body)
        try:
            answer = api.rest_client.pool_manager.request(
                method, api.configuration.host + target, headers=head, body=data, timeout=_TIMEOUT
            )
        except (HTTPError, OSError) as error:
            raise BackendError(
                f"The cluster at {api.configuration.host} does not answer",
                why=str(error)[:500],
                fix="`kubectl cluster-info` tells whether it can be reached.",
            ) from error
        if answer.status >= 300:
            raise _refused(answer.status, answer.data, api.configuration.host)
        return bytes(answer.data)


def _library() -> tuple[Any, Any, tuple[type[Exception], ...]]:
    """Modules of the official client, and what it raises for a kubeconfig that it cannot use.  Raises `BackendError`."""
    try:
        from kubernetes import client, config
    except ImportError:
        raise BackendError("Kubernetes needs its client", fix="pip install 'runproj[kubernetes]'") from None
    return client, config, (config.ConfigException, config.kube_config.yaml.YAMLError, OSError)


class _MissingError(BackendError):
    """What was asked for is not there."""


class _ConflictError(BackendError):
    """What was to be made is there."""


def _refused(code: int, said: bytes, host: str) -> BackendError:
    text = said.decode(errors="replace")
    with contextlib.suppress(ValueError, AttributeError):
        text = json.loads(text).get("message") or text
    kind: Callable[..., BackendError] = {404: _MissingError, 409: _ConflictError}.get(code, BackendError)
    fix = "`kubectl auth can-i create jobs` tells what you may do there." if code in (401, 403) else ""
    return kind(f"The cluster at {host} answered {code}", why=text.strip()[:1000], fix=fix)


def make(context: BackendContext) -> KubernetesBackend:
    """See `runproj.backends.catalogue`."""
    return KubernetesBackend(context)

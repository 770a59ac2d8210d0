"""Requests to a server that speaks MLflow's protocol: one kept connection, credentials, repeats, errors without secrets."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import IO
from urllib.parse import SplitResult, quote, unquote, urlencode, urlsplit

from runproj.errors import AlreadyExistsError, NotFoundError, RefusedError, TrackingError, UsageError

_TIMEOUT = 120.0
_PAUSES = (0.0, 0.25, 1.0, 3.0)  # seconds before each attempt
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})

_SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")

Document = dict[str, object]


class UnreachableError(TrackingError):
    """No answer, or a connection that broke: to ask again may help."""


class Remote:
    """A server.  `environ` holds its credentials (MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN), TLS and proxy options.

    Every request raises `TrackingError` where the server cannot be reached or fails, and its subclasses `RefusedError` and
    `AlreadyExistsError`, or `NotFoundError`, for what it answers.
    """

    def __init__(self, uri: str, environ: Mapping[str, str]) -> None:
        parts = urlsplit(uri)
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self._secure = parts.scheme == "https"
        self._base = parts.path.rstrip("/")
        self.shown = scrubbed(uri)
        self._environ = environ
        self._headers = {"User-Agent": "runproj", **_authorization(parts.username, parts.password, environ)}
        self._absolute = ""  # what a proxy needs in front of a path
        secrets = (unquote(parts.password or ""), *(environ.get(name, "").strip() for name in _SECRETS))
        self._secrets = tuple(secret for secret in secrets if secret)
        self._local = threading.local()

    def get(self, call: str, **query: str | int | None) -> Document:
        """GET an API call; fields that are None are left out."""
        given = {key: value for key, value in query.items() if value is not None}
        return self._json("GET", f"/api/2.0/mlflow/{call}?{urlencode(given)}", None, repeat=True)

    def post(self, call: str, message: Mapping[str, object], *, repeat: bool = True) -> Document:
        """POST an API call.  Without `repeat` it is sent once: for what must not happen twice."""
        return self._json("POST", f"/api/2.0/mlflow/{call}", json.dumps(message).encode(), repeat=repeat)

    def send(self, method: str, call: str, message: Mapping[str, object]) -> Document:
        """An API call with any other method."""
        return self._json(method, f"/api/2.0/mlflow/{call}", json.dumps(message).encode(), repeat=True)

    @contextmanager
    def raw(self, target: str) -> Iterator[HTTPResponse]:
        """GET what is below the server's address, to be read in the block.  Raises `NotFoundError`."""
        for pause in _PAUSES:
            time.sleep(pause)
            with self._answer("GET", target, None, {}, last=pause == _PAUSES[-1]) as answer:
                if answer is not None:
                    yield answer
                    return

    def upload(self, path: str, file: IO[bytes], size: int) -> None:
        """Store a file in the server's artifact store."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        for pause in _PAUSES:
            time.sleep(pause)
            file.seek(0)
            with self._answer("PUT", self._artifact(path), file, headers, last=pause == _PAUSES[-1]) as answer:
                if answer is not None:
                    answer.read()
                    return

    def call(self, method: str, target: str, message: Mapping[str, object] | None = None) -> Document:
        """A call at the path `target` below the server's address, repeated where that may help."""
        return self._json(method, target, None if message is None else json.dumps(message).encode(), repeat=True)

    def put(self, target: str, data: bytes) -> str:
        """Store bytes at the path `target`; returns the ETag that the server gives them."""
        headers = {"Content-Type": "application/octet-stream"}
        for pause in _PAUSES:
            time.sleep(pause)
            with self._answer("PUT", target, data, headers, last=pause == _PAUSES[-1]) as answer:
                if answer is not None:
                    answer.read()
                    return answer.headers.get("ETag", "")
        raise AssertionError("the last attempt answers or raises")

    @contextmanager
    def download(self, path: str, headers: Mapping[str, str] | None = None) -> Iterator[HTTPResponse]:
        """A file of the server's artifact store, to be read in the block.  Raises `NotFoundError`."""
        with self._answer("GET", self._artifact(path), None, headers or {}, last=True) as answer:
            assert answer is not None
            yield answer

    @staticmethod
    def _artifact(path: str) -> str:
        return f"/api/2.0/mlflow-artifacts/artifacts/{quote(path)}"

    def _json(self, method: str, target: str, body: bytes | None, *, repeat: bool) -> Document:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if not repeat:
            self._drop()  # a kept connection may be dead already, and then nobody knows whether the request was heard
        for pause in _PAUSES if repeat else _PAUSES[:1]:
            time.sleep(pause)
            last = not repeat or pause == _PAUSES[-1]
            with self._answer(method, target, body, headers, last=last) as answer:
                if answer is not None:
                    return self._document(answer.read(), method, target)
        raise AssertionError("the last attempt answers or raises")

    def _document(self, content: bytes, method: str, target: str) -> Document:
        try:
            found = json.loads(content or b"{}")
        except ValueError:
            found = None
        if not isinstance(found, dict):
            what = f"{self.shown} does not answer as an MLflow server does"
            raise TrackingError(
                what, why=f"{method} {target.partition('?')[0]} gave no JSON object.", fix="Check the tracking URI."
            )
        return found

    @contextmanager
    def _answer(
        self, method: str, target: str, body: bytes | IO[bytes] | None, headers: Mapping[str, str], *, last: bool
    ) -> Iterator[HTTPResponse | None]:
        """The answer to one attempt, if it is a good one; None after a failure that may pass, unless it is the last attempt."""
        try:
            connection = self._connection()
            place = f"{self._absolute}{self._base}{target}" if self._absolute else self._base + target
            answer = _asked(connection, method, place, body, {**self._headers, **headers})
            if answer.status >= 400:
                content = answer.read(1 << 20)
                self._drop()
                if answer.status not in _TRANSIENT or last:
                    raise self._refusal(answer.status, content, target)
                yield None
                return
        except (OSError, HTTPException) as error:
            self._drop()
            if last or isinstance(error, ssl.SSLCertVerificationError):
                raise self._unreachable(error) from error
            yield None
            return
        try:
            yield answer
        except (OSError, HTTPException) as error:
            self._drop()
            raise self._unreachable(error) from error
        finally:
            if not answer.isclosed():  # not read to its end: the rest would be taken for the next answer
                self._drop()

    def _unreachable(self, error: Exception) -> UnreachableError:
        why = (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip()
        fix = "Check that it runs and that this is its address."
        names = ("RUNPROJ_TRACKING_URI", "MLFLOW_TRACKING_URI")
        if named := [name for name in names if scrubbed(self._environ.get(name, "")) == self.shown]:
            which = " and ".join(named)
            fix = f"Check that it runs and that {which} should name it; unset {which} to record locally."
        return UnreachableError(f"The tracking server {self.shown} cannot be reached", why=why, fix=fix)

    def _refusal(self, status: int, content: bytes, target: str) -> Exception:
        try:
            found = json.loads(content)
            code, message = str(found["error_code"]), str(found.get("message", ""))
        except (ValueError, KeyError, TypeError):
            code, message = "", content[:300].decode(errors="replace").strip()
        for secret in self._secrets:
            message = message.replace(secret, "***")
        if code in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):
            return AlreadyExistsError(message)
        if code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            return NotFoundError(message)
        if status in (401, 403):
            return self._no_access(status, message[:500])
        call = target.partition("?")[0].rpartition("/mlflow/")[2]
        if status < 500 and code:
            return RefusedError(message or f"The tracking server refuses {call}")
        return TrackingError(f"The tracking server {self.shown} answers {call} with status {status}", why=message[:500])

    def _no_access(self, status: int, message: str) -> TrackingError:
        """Who asks is not known (401), or may not do that (403).  Servers of ours say themselves what helps: it is told once."""
        fix = "Set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        if status == 403:
            fix = (
                "" if "user grant" in message else "Ask whoever runs the server, or be somebody else: " + fix[0].lower() + fix[1:]
            )
        elif "MLFLOW_TRACKING_TOKEN" in message:
            message = "It does not know who asks."
        return TrackingError(f"The tracking server {self.shown} refuses access ({status})", why=message, fix=fix)

    def _connection(self) -> HTTPConnection:
        """This thread's connection, opened where there is none."""
        connection: HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._open()
            self._local.connection = connection
        return connection

    def _open(self) -> HTTPConnection:
        host, port, proxied = self.host, self.port, self._proxy()
        if proxied is not None:
            host, port = proxied.hostname or "", proxied.port or 80
        kind: HTTPConnection
        if self._secure:
            kind = HTTPSConnection(host, port, timeout=_TIMEOUT, context=_tls(self._environ))
        else:
            kind = HTTPConnection(host, port, timeout=_TIMEOUT)
        if proxied is not None:
            login = _basic(proxied.username, proxied.password) if proxied.username else ""
            if self._secure:
                kind.set_tunnel(self.host, self.port, {"Proxy-Authorization": login} if login else {})
            else:
                self._absolute = f"http://{self.host}:{self.port}"
                if login:
                    self._headers["Proxy-Authorization"] = login
        return kind

    def _proxy(self) -> SplitResult | None:
        proxies = _proxies(self._environ)
        uri = proxies.get("https" if self._secure else "http")
        if not uri or _bypassed(self.host, proxies.get("no", "")):
            return None
        return urlsplit(uri if "://" in uri else f"http://{uri}")

    def _drop(self) -> None:
        connection: HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None


def _asked(
    connection: HTTPConnection, method: str, place: str, body: bytes | IO[bytes] | None, headers: Mapping[str, str]
) -> HTTPResponse:
    """The answer to a request; also one that refuses a body before its end, and hangs up."""
    if connection.sock is None:
        connection.connect()
    try:
        connection.request(method, place, body, headers)
    except ConnectionError as broken:
        try:
            answer = connection.getresponse()
        except (OSError, HTTPException):
            raise broken from None
        if answer.status < 400:  # of a body that did not arrive nothing good can be said
            raise
        return answer
    return connection.getresponse()


def scrubbed(uri: str) -> str:
    """The URI of a server without user, password and query: as it can be shown."""
    parts = urlsplit(uri)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}{parts.path.rstrip('/')}"


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """Scheme → proxy, from `http_proxy` and its kin; the lower-case names win."""
    found: dict[str, str] = {}
    for name in sorted(environ):
        scheme, _, rest = name.lower().rpartition("_")
        if rest == "proxy" and environ[name]:
            found[scheme] = environ[name]
    return found


def _bypassed(host: str, no_proxy: str) -> bool:
    """Whether `no_proxy` ("localhost, .example.org, *") names the host."""
    for entry in filter(None, (part.strip().lower() for part in no_proxy.split(","))):
        name = entry.partition(":")[0].lstrip("*.")
        if entry == "*" or host == name or host.endswith(f".{name}"):
            return True
    return False


def _authorization(user: str | None, password: str | None, environ: Mapping[str, str]) -> dict[str, str]:
    user = unquote(user) if user else environ.get("MLFLOW_TRACKING_USERNAME")
    password = unquote(password) if password else environ.get("MLFLOW_TRACKING_PASSWORD")
    if user:
        return {"Authorization": _basic(user, password)}
    if token := environ.get("MLFLOW_TRACKING_TOKEN", "").strip():
        if not (token.isascii() and token.isprintable()):
            raise UsageError(
                "MLFLOW_TRACKING_TOKEN has characters that no token can have", fix="Set it anew, without line breaks."
            )
        return {"Authorization": f"Bearer {token}"}
    return {}


def _basic(user: str | None, password: str | None) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password or ''}".encode()).decode()


def _tls(environ: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or None)
    if environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("1", "true"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate := environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"):
        context.load_cert_chain(certificate)
    return context

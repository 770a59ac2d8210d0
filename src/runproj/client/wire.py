"""Calls of MLflow's protocol, over HTTP or whatever else carries a request; answers sorted into good, refused, and not now."""

import json
import os
from typing import IO, Any, Callable, Dict, Mapping, Optional, Tuple, Union

Body = Union[None, bytes, IO[bytes]]
Exchange = Callable[[str, str, Body, Mapping[str, str]], Tuple[int, bytes]]
"""Sends a request (method, path with query, body, headers); returns status and content.  Raises OSError where nobody answers."""

_TIMEOUT = 60.0
_SLOWEST = 5e6  # bytes a second
_BLOCK = 1 << 18
_API = "/api/2.0/mlflow/"
_ONCE = _API + "runs/create"
"""The one call that does something else when it is heard twice: it makes two runs, where the server gives ids of its own."""
_FILES = "/api/2.0/mlflow-artifacts/artifacts/"


class Away(Exception):
    """The server cannot be reached, or cannot do its work now: the same again later may be fine."""


class Rejected(Exception):
    """The server refuses what was asked, and always will.  `missing`: what it is about does not exist."""

    def __init__(self, message: str, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


class Server:
    """Every call raises `Away` or `Rejected`.  Used by one thread at a time."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def post(self, call: str, message: Mapping[str, object]) -> Any:
        """A call with a message."""
        return _document(self._ask("POST", _API + call, json.dumps(message).encode(), {"Content-Type": "application/json"}))

    def get(self, call: str, **query: str) -> Any:
        """A call with a query."""
        from urllib.parse import urlencode

        return _document(self._ask("GET", _API + call + "?" + urlencode(query), None, {}))

    def put(self, path: str, source: str) -> None:
        """Store a file at a path of the proxied artifact store."""
        from urllib.parse import quote

        with open(source, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
            self._ask("PUT", _FILES + quote(path.strip("/")), file, headers)

    def fetch(self, path: str) -> Optional[bytes]:
        """A file of the proxied artifact store; None where there is none."""
        from urllib.parse import quote

        try:
            return self._ask("GET", _FILES + quote(path.strip("/")), None, {})
        except Rejected as error:
            if error.missing:
                return None
            raise

    def _ask(self, method: str, path: str, body: Body, headers: Mapping[str, str]) -> bytes:
        import http.client

        try:
            status, content = self._exchange(method, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            raise Away(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error
        if status < 300:
            return content
        code, message = _problem(content)
        if status == 413 or (code and status in (400, 403, 404, 409, 422)):
            raise Rejected(message or code or "it is too large", missing=status == 404)
        if status in (401, 403, 407):
            message = f"it refuses access ({status}); set MLFLOW_TRACKING_TOKEN, or _USERNAME and _PASSWORD. {message}"
        raise Away(message.strip() or f"it answered with status {status}")


def _document(content: bytes) -> Any:
    try:
        return json.loads(content.decode() or "{}")
    except ValueError:
        raise Away("it does not answer as an MLflow server does") from None


def _problem(content: bytes) -> Tuple[str, str]:
    try:
        found = json.loads(content.decode())
        return str(found["error_code"]), str(found.get("message", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", ""


class Http:
    """An `Exchange` over one kept connection.  `environ` holds credentials and options for TLS."""

    def __init__(self, uri: str, environ: Mapping[str, str]) -> None:
        from urllib.parse import urlsplit

        parts = urlsplit(uri)
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port
        self._base = parts.path.rstrip("/")
        self._environ = environ
        self._headers = dict({"User-Agent": "runproj"}, **_authorization(parts.username, parts.password, environ))
        self._connection: Any = None

    def __call__(self, method: str, path: str, body: Body, headers: Mapping[str, str]) -> Tuple[int, bytes]:
        import http.client

        kept = self._connection is not None
        try:
            return self._send(method, path, body, headers)
        except (OSError, http.client.HTTPException):
            self._drop()
            if not kept or path == _ONCE:
                raise
        if hasattr(body, "seek"):
            body.seek(0)  # type: ignore[union-attr]  # it is a file
        try:
            return self._send(method, path, body, headers)  # the kept connection had been closed: once more, on a new one
        except BaseException:
            self._drop()
            raise

    def _send(self, method: str, path: str, body: Body, headers: Mapping[str, str]) -> Tuple[int, bytes]:
        if self._connection is None:
            self._connection = self._connect()
        limit = _TIMEOUT + int(headers.get("Content-Length", 0)) / _SLOWEST  # a server may look at a large file for a while
        self._connection.timeout, self._connection.blocksize = limit, _BLOCK
        if self._connection.sock is None:
            self._connection.connect()
        self._connection.sock.settimeout(limit)
        answer = _answer(self._connection, method, self._base + path, body, dict(self._headers, **headers))
        content = answer.read()
        if answer.will_close:
            self._drop()
        return answer.status, content

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _connect(self) -> Any:
        import http.client
        from urllib.parse import urlsplit
        from urllib.request import getproxies, proxy_bypass

        scheme = "https" if self._secure else "http"
        port = self._port or (443 if self._secure else 80)
        proxy = None if proxy_bypass(self._host) else getproxies().get(scheme)
        parts = urlsplit(proxy if "://" in proxy else "http://" + proxy) if proxy else None
        host, through = (parts.hostname or "", parts.port or 80) if parts else (self._host, port)
        if not self._secure:
            connection = http.client.HTTPConnection(host, through, timeout=_TIMEOUT)
            if parts:
                login = _login(parts.username, parts.password)
                self._base = f"http://{self._host}:{port}" + urlsplit(self._base).path
                self._headers.update({"Proxy-Authorization": login} if login else {})
            return connection
        secure = http.client.HTTPSConnection(host, through, timeout=_TIMEOUT, context=_tls(self._environ))
        if parts:
            login = _login(parts.username, parts.password)
            secure.set_tunnel(self._host, port, {"Proxy-Authorization": login} if login else {})
        return secure


def _answer(connection: Any, method: str, path: str, body: Body, headers: Mapping[str, str]) -> Any:
    """The answer to a request on an open connection; also one that refuses a body before its end, and hangs up."""
    import http.client

    try:
        connection.request(method, path, body, headers)
    except ConnectionError as broken:
        try:
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException):
            raise broken from None
        if answer.status < 400:  # of a body that did not arrive nothing good can be said
            raise
        return answer
    return connection.getresponse()


def scrubbed(uri: str) -> str:
    """A tracking URI as it can be shown: without user and password."""
    scheme, found, rest = uri.partition("://")
    place, slash, path = rest.partition("/")
    return scheme + found + place.rpartition("@")[2] + slash + path


def _authorization(user: Optional[str], password: Optional[str], environ: Mapping[str, str]) -> Dict[str, str]:
    login = _login(user, password) or _login(
        environ.get("MLFLOW_TRACKING_USERNAME"), environ.get("MLFLOW_TRACKING_PASSWORD"), quoted=False
    )
    token = environ.get("MLFLOW_TRACKING_TOKEN", "").strip()
    if login:
        return {"Authorization": login}
    return {"Authorization": "Bearer " + token} if token else {}


def _login(user: Optional[str], password: Optional[str], quoted: bool = True) -> str:
    import base64
    from urllib.parse import unquote

    if not user:
        return ""
    pair = f"{unquote(user)}:{unquote(password or '')}" if quoted else f"{user}:{password or ''}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _tls(environ: Mapping[str, str]) -> Any:
    import ssl

    context = ssl.create_default_context(cafile=environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or None)
    if environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("1", "true"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"):
        context.load_cert_chain(environ["MLFLOW_TRACKING_CLIENT_CERT_PATH"])
    return context

"""How a cluster is named: a kubeconfig that cannot be used, and a Python without the client, are told."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from runproj.backends.catalogue import BackendContext
from runproj.backends.kubernetes import make
from runproj.core.backend import Demand
from runproj.errors import BackendError

WITHOUT = """
import sys
sys.modules["kubernetes"] = None
from pathlib import Path
from runproj.backends.catalogue import BackendContext
from runproj.backends.kubernetes import make
from runproj.core.backend import Demand
from runproj.errors import BackendError
try:
    make(BackendContext(Path("home"), {}, "http://server")).check(Demand(options={"image": "x"}))
except BackendError as error:
    print(error.fix)
"""


def test_a_python_without_the_client_is_told_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert done.stdout == "pip install 'runproj[kubernetes]'\n", done.stderr


@pytest.mark.parametrize(
    ("text", "word"), [("a: [b\n", "while parsing"), ("", "nvalid kube-config"), ("contexts: []\n", "kube-config")]
)
def test_a_kubeconfig_that_cannot_be_used_is_told(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "kubeconfig").write_text(text)
    backend = make(BackendContext(tmp_path, {"KUBECONFIG": str(tmp_path / "kubeconfig")}, "http://server"))
    with pytest.raises(BackendError, match="no kubeconfig") as caught:
        backend.check(Demand(options={"image": "x"}))
    assert word in (caught.value.why or "")


NO_CURRENT = """
current-context: ""
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {}}]
contexts: [{name: prod, context: {cluster: c, user: u, namespace: ml}}]
"""


@pytest.mark.parametrize(("context", "namespace"), [("prod", "ml"), ("", "default"), ("other", "default")])
def test_the_namespace_of_a_context_where_none_is_the_current_one(tmp_path: Path, context: str, namespace: str) -> None:
    (tmp_path / "kubeconfig").write_text(NO_CURRENT)
    backend = make(BackendContext(tmp_path, {"KUBECONFIG": str(tmp_path / "kubeconfig")}, "http://server"))
    assert backend._place({"context": context}) == {"context": context, "namespace": namespace}


@pytest.mark.parametrize(
    ("code", "said", "what"), [(200, b"<p>log in</p>", "is no cluster"), (500, b'{"message": null}', "answered 500")]
)
def test_an_answer_that_is_no_clusters_is_told(tmp_path: Path, code: int, said: bytes, what: str) -> None:
    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

    with http.server.HTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        text = NO_CURRENT.replace("127.0.0.1:1", f"127.0.0.1:{server.server_port}")
        (tmp_path / "kubeconfig").write_text(text)
        backend = make(BackendContext(tmp_path, {"KUBECONFIG": str(tmp_path / "kubeconfig")}, "http://server"))
        with pytest.raises(BackendError, match=what) as caught:
            backend.check(Demand(options={"image": "x", "context": "prod"}))
        server.shutdown()
    assert said.decode() in (caught.value.why or "")

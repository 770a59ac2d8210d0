"""How a cluster is named: a kubeconfig that cannot be used, and a Python without the client, are told."""

from __future__ import annotations

import subprocess
import sys
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

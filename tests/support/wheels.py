"""Packages that tests of the examples have in common are fetched and unpacked once in a session, by whichever comes first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def common_wheels(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of uv's for programs that are started in this test, beside the homes of all tests."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "common wheels"
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("UV_CACHE_DIR", str(folder))
    return folder

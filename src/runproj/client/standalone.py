"""Log parameters, metrics, tags and files into the run that this process belongs to: `import runproj; runproj.log_metric(...)`.

This file is the `runproj` that runs give to their projects, beside a copy of the package `client`.
"""

import os
import sys
from typing import Any


def _give_way() -> bool:
    """Be the installed runproj where the environment has one: this copy must not hide it from a `runproj run` inside the run."""
    from importlib.machinery import PathFinder

    module: Any = sys.modules["runproj"]
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    spec = PathFinder.find_spec("runproj", [path for path in sys.path if os.path.abspath(path or ".") != here])
    if spec is None or spec.loader is None or spec.origin is None:
        return False
    module.__path__ = list(spec.submodule_search_locations or [])
    module.__file__ = spec.origin
    module.__spec__ = spec
    spec.loader.exec_module(module)
    return True


if __name__ != "runproj" or not _give_way():
    from runproj.client import *  # noqa: F403 - these names are what it is for

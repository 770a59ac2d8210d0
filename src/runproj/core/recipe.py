"""What makes two runs repetitions of each other: a digest over everything in a plan that can decide the result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from enum import Enum

from runproj.core.plan import Plan


def recipe_of(plan: Plan) -> str:
    """sha256 over code, call, lock and what the descriptor says of the run.

    Where the code came from, resources, timeouts, names and expectations are left out, and so is the content of inputs, which
    is known only when they are there.
    """
    code, call, point = plan.code, plan.call, plan.entry_point
    deciding = {
        "tree": plan.scope or code.tree,
        "subdirectory": code.subdirectory,
        "submodules": [] if plan.scope else [(module.path, module.commit) for module in code.submodules],
        "entry_point": call.entry_point,
        "command": asdict(call.command),
        "values": [(value.name, value.value) for value in call.values],
        "lock": plan.lock.digest,
        "env": point.env,
        "inputs": [(spec.name, spec.uri) for spec in point.inputs],
        "outputs": point.outputs,
        "metrics": [asdict(spec) for spec in point.metrics],
        "clean_env": plan.options.clean_env,
        "deterministic": plan.options.deterministic,
        "docker_args": plan.options.docker_args,
    }
    text = json.dumps(deciding, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object) -> object:
    return value.value if isinstance(value, Enum) else str(value)

"""The digest of a lock, and the name of a platform."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import replace
from functools import cache

from runproj import codec
from runproj.core.environment import EnvLock, ImagePin
from runproj.environments.requests import VERSION


def lock_digest(lock: EnvLock) -> str:
    """sha256 over what decides the files of the environment: packages, interpreter, platform, local packages, our version."""
    python = lock.python
    deciding = {
        "version": VERSION,
        "manager": lock.manager.value,
        "platform": lock.platform,
        "python": [python.version, python.implementation] if python else None,
        "system": python.path if python and lock.pylock is None and not lock.conda else None,
        "pylock": lock.pylock,
        "image": _image(lock.image),
        "installed": lock.installed,
        "local": codec.to_plain(lock.local_packages),
    }
    if lock.conda:
        deciding["conda"] = [codec.to_plain(package) for package in lock.conda]
        deciding["variables"] = lock.variables  # what packages do when they are activated may depend on them
    return hashlib.sha256(codec.to_json(deciding).encode()).hexdigest()


def _image(pin: ImagePin | None) -> object:
    """What of an image decides what a command meets: not by which name it was asked for, nor the id of one with a digest."""
    if pin is None:
        return None
    asked = replace(pin.asked, image="", build=None)
    return codec.to_plain(replace(pin, asked=asked, id="" if "@" in pin.reference else pin.id))


@cache
def platform_name() -> str:
    """What decides which wheels fit: system, processor, C library."""
    try:
        libc = (os.confstr("CS_GNU_LIBC_VERSION") or "").replace(" ", "-")
    except (ValueError, OSError):
        libc = ""
    return "-".join(filter(None, [sys.platform, os.uname().machine, libc]))

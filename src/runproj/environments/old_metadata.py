"""Metadata of old packages that today's resolver refuses, said again in valid words.

pandas before 0.25 asks for `pytz (>=2011k)`, which PEP 440 does not know as a version; a resolver that skips such files goes
back to a pandas of 2013 and builds it from source.  The requirements below are those of the packages' own `setup.py`.
"""

from __future__ import annotations

_PANDAS = {
    ("0.19.0", "0.19.1", "0.19.2"): ("python-dateutil>=2", "numpy>=1.7.0"),
    ("0.20.0", "0.20.1", "0.20.2", "0.20.3"): ("python-dateutil>=2", "numpy>=1.7.0"),
    ("0.21.0", "0.21.1", "0.22.0"): ("python-dateutil>=2", "numpy>=1.9.0"),
    ("0.23.0", "0.23.1", "0.23.2", "0.23.3", "0.23.4"): ("python-dateutil>=2.5.0", "numpy>=1.9.0"),
    ("0.24.0", "0.24.1", "0.24.2"): ("python-dateutil>=2.5.0", "numpy>=1.12.0"),
}


def _tables() -> str:
    lines: list[str] = []
    for versions, requires in _PANDAS.items():
        listed = ", ".join(f'"{item}"' for item in (*requires, "pytz>=2011.11"))
        for version in versions:
            lines += ["[[dependency-metadata]]", 'name = "pandas"', f'version = "{version}"', f"requires-dist = [{listed}]", ""]
    return "\n".join(lines)


CORRECTIONS = _tables()
"""TOML for a `uv.toml`."""

"""runproj: run any project from a git URL, pinned and recorded, and run it again exactly as before."""

from __future__ import annotations

__version__ = "0.1.0"

"""Where code comes from: git remotes, local folders and archives → Checkout."""

from runproj.source.scratch import sweep
from runproj.source.store import SourceStore
from runproj.source.uris import scrub

__all__ = ["SourceStore", "scrub", "sweep"]

"""Settings → Services: the one place that knows every concrete class."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from runproj.core.services import ProjectReader, Reporter, Services
from runproj.files import Objects
from runproj.leases import Leases
from runproj.settings import Settings

if TYPE_CHECKING:
    import socket

    from runproj.core.backend import Backend, Job
    from runproj.core.call import Call
    from runproj.core.project import Project
    from runproj.core.services import Endpoint
    from runproj.core.tracking import ArtifactStore, TrackingStore
    from runproj.environments import EnvironmentCache
    from runproj.recovery import Stores
    from runproj.source import SourceStore

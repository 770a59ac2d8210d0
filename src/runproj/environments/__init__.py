"""EnvSpec → EnvLock → Environment: what a project needs, pinned, built once and kept."""

from runproj.environments.cache import EnvironmentCache

__all__ = ["EnvironmentCache"]

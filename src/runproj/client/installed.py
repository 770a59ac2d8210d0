"""What the client takes from the rest of runproj where it is installed: its settings, and its store without a server.

The copy of the client that runs give to their projects lacks all this; there the import of this module fails.
"""

from runproj import settings
from runproj.client.wire import Exchange


def tracking_uri() -> str:
    """Where runproj records unless told otherwise."""
    return settings.load().tracking_uri


def experiment() -> str:
    """The experiment of new runs unless told otherwise."""
    return settings.load().experiment


def exchange(uri: str) -> Exchange:
    """The store at a tracking URI, spoken to as if it were a server."""
    from runproj.server.inprocess import InProcess

    found = settings.load()
    return InProcess(uri, found.home, found.artifacts_uri).exchange

"""What a reader of a format raises, in words that end "compared by bytes: …"."""

from __future__ import annotations


class Unreadable(Exception):
    """The content cannot be read as that format, or what reads it is not installed."""

"""The JSON Schema of `runproj.yaml`, for editors and other programs; generated from the tables that the reader reads by."""

from __future__ import annotations

from runproj.descriptor.grammar import runproj_schema


def descriptor_schema() -> dict[str, object]:
    """The schema (draft 2020-12).  What relates several values (a default and its type, a command and its parameters) is the
    reader's to check; `runproj validate` does."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "runproj.yaml",
        "description": "A project that runproj can run: its commands, their parameters, and the environment they need.",
        **runproj_schema(),
    }

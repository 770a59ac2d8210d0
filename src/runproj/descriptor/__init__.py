"""MLproject, `runproj.yaml` and bare folders → Project.  The only readers of YAML."""

from __future__ import annotations

from runproj.descriptor.given import parse_given, read_params_file
from runproj.descriptor.mappings import read_mapping
from runproj.descriptor.paths import resolve_paths
from runproj.descriptor.problems import DescriptorProblems, Problem, Severity
from runproj.descriptor.reader import problems_of, read_project
from runproj.descriptor.schema import descriptor_schema
from runproj.descriptor.starter_text import starter

__all__ = [
    "DescriptorProblems",
    "Problem",
    "Severity",
    "descriptor_schema",
    "parse_given",
    "problems_of",
    "read_mapping",
    "read_params_file",
    "read_project",
    "resolve_paths",
    "starter",
]

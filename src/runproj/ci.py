"""What a CI system wants to be told in its own words: sections of the log, annotations, a summary, JUnit."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import field
from enum import Enum
from xml.etree import ElementTree

from runproj.capsule.page import Page, Text, as_markdown
from runproj.core.run import Run, RunStatus
from runproj.core.values import dataclass
from runproj.core.verdict import Level, Verdict
from runproj.reproduce.junit import junit

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class System(Enum):
    """Who reads the log."""

    GITHUB = "github"
    GITLAB = "gitlab"
    OTHER = "other"


def system(environ: Mapping[str, str]) -> System:
    """The CI system of this process, as it says itself."""
    if environ.get("GITHUB_ACTIONS") == "true":
        return System.GITHUB
    return System.GITLAB if environ.get("GITLAB_CI") == "true" else System.OTHER


@dataclass(frozen=True)
class Words:
    """Lines for the log of a CI system.

    token: ends a stretch of the log in which GitHub takes nothing for a command: what a project prints must not steer the job.
    """

    system: System
    token: str = field(default_factory=lambda: secrets.token_hex(16))

    def begin(self, name: str, title: str) -> list[str]:
        """A section that can be folded; what others print is in it."""
        match self.system:
            case System.GITHUB:
                return [f"::group::{_data(title)}", f"::stop-commands::{self.token}"]
            case System.GITLAB:
                return [f"\x1b[0Ksection_start:{int(time.time())}:{name}\r\x1b[0K{_line(title)}"]
            case System.OTHER:
                return [f"== {_line(title)}"]

    def end(self, name: str) -> list[str]:
        """Its end."""
        match self.system:
            case System.GITHUB:
                return [f"::{self.token}::", "::endgroup::"]
            case System.GITLAB:
                return [f"\x1b[0Ksection_end:{int(time.time())}:{name}\r\x1b[0K"]
            case System.OTHER:
                return []

    def annotation(self, kind: str, title: str, text: str) -> list[str]:
        """What is to be seen beside the change: kind is "error", "warning" or "notice".  Elsewhere it is a line of the log."""
        if self.system is System.GITHUB:
            return [f"::{kind} title={_property(title)}::{_data(text)}"]
        return [f"{kind}: {_line(title)}", *(f"  {_line(line)}" for line in text.splitlines())]


def _data(text: str) -> str:
    """A message of a workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """A property of a workflow command."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _line(text: str) -> str:
    return re.sub("[\x00-\x1f\x7f-\x9f]", " ", text)


def document(run: Run | None, verdict: Verdict | None, error: str, at_least: Level) -> str:
    """JUnit XML of a whole `runproj ci`: the run, and what came of repeating it.  `error`: why it did not come to an end."""
    root = ElementTree.fromstring(junit(verdict, at_least)) if verdict else ElementTree.Element("testsuites")
    took = ((run.end or run.start) - run.start) / 1000 if run else 0.0
    case = ElementTree.Element("testcase", classname="run", name="the run finishes", time=f"{took:.3f}")
    bad = run is None or run.status is not RunStatus.FINISHED or bool(error)
    if bad:
        reason = error or (run.tag("runproj.reason") if run else "") or (run.status.value if run else "")
        tag = "error" if error else "failure"
        ElementTree.SubElement(case, tag, message=_xml(reason.partition("\n")[0]), type="run").text = _xml(reason)
    counts = {"tests": "1", "failures": str(int(bad and not error)), "errors": str(int(bool(error))), "skipped": "0"}
    name = f"runproj run {run.id}" if run else "runproj run"
    suite = ElementTree.Element("testsuite", {"name": name, "time": f"{took:.3f}", **counts})
    suite.append(case)
    root.insert(0, suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _xml(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def summary(verdict: Verdict | None, notes: Sequence[str]) -> str:
    """What comes before the report on the page of a job, as Markdown."""
    said = f"{verdict.level.value} {verdict.words}" if verdict else "The result was not repeated"
    return as_markdown(Page(said, (("", tuple(Text(note) for note in notes)),)))

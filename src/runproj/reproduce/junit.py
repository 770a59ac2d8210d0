"""A verdict as JUnit XML: a test case for each replay, output and metric, as CI systems show them.

The elements and attributes are those of the schema that the Jenkins xUnit plugin publishes (junit-10.xsd).
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from runproj.core.verdict import Level, MetricCheck, OutputCheck, Replay, Sameness, Verdict

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(verdict: Verdict, at_least: Level | None = None) -> str:
    """The document.  A test case fails where it is not good enough for the level that is demanded (R4, if none is)."""
    demanded = at_least or Level.R4
    root = ElementTree.Element("testsuites")
    for number, replay in enumerate(verdict.replays, start=1):
        of = f" {number}" if len(verdict.replays) > 1 else ""
        cases = [_level(replay, demanded), *(_output(check, demanded) for check in replay.outputs)]
        cases += [_metric(check, demanded) for check in replay.metrics]
        failures = sum(case.find("failure") is not None for case in cases)
        errors = sum(case.find("error") is not None for case in cases)
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=f"runproj reproduce {verdict.run}{of}",
            tests=str(len(cases)),
            failures=str(failures),
            errors=str(errors),
            skipped="0",
            time=f"{replay.seconds:.3f}",
        )
        suite.extend(cases)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _case(kind: str, name: str, seconds: float = 0.0) -> ElementTree.Element:
    return ElementTree.Element("testcase", classname=f"reproduce.{kind}", name=_text(name), time=f"{seconds:.3f}")


def _bad(case: ElementTree.Element, tag: str, message: str, details: str = "") -> ElementTree.Element:
    below = ElementTree.SubElement(case, tag, message=_text(message), type="reproduce")
    below.text = _text(details or message)
    return case


def _level(replay: Replay, demanded: Level) -> ElementTree.Element:
    case = _case("level", f"at least {demanded.value}", replay.seconds)
    if replay.level is Level.FAILED:
        return _bad(case, "error", replay.level.words, replay.reason)
    if replay.level.rank < demanded.rank:
        return _bad(case, "failure", f"{replay.level.value}: {replay.level.words}", replay.reason)
    return case


def _output(check: OutputCheck, demanded: Level) -> ElementTree.Element:
    case = _case("output", check.path)
    good = {Level.R4: {Sameness.EXACT}, Level.R3: {Sameness.EXACT, Sameness.EQUAL}}.get(demanded)
    if good is not None and check.same not in good:
        return _bad(case, "failure", check.same.value, check.how)
    return case


def _metric(check: MetricCheck, demanded: Level) -> ElementTree.Element:
    case = _case("metric", check.name)
    good = {Sameness.EXACT, Sameness.WITHIN} if demanded.rank <= Level.R1.rank else {Sameness.EXACT}
    if demanded.rank >= Level.R1.rank and check.same not in good:
        return _bad(case, "failure", check.same.value, f"original {check.original}, replay {check.replay}; {check.tolerance}")
    return case


def _text(text: str) -> str:
    """Without what XML has no way to say."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)

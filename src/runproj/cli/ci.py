"""`ci`: run a project and prove that its result comes back, told in the words of the CI system that it runs in."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runproj.cli import complete, output
from runproj.cli import options as opt
from runproj.core.values import dataclass
from runproj.errors import RunprojError, UsageError

if TYPE_CHECKING:
    from runproj.ci import Words
    from runproj.core.plan import Request
    from runproj.core.run import Run
    from runproj.core.verdict import Level, Verdict
    from runproj.wiring import Wiring


def register(app: typer.Typer) -> None:
    app.command("ci")(ci)


AtLeast = Annotated[
    str,
    typer.Option(
        "--at-least",
        metavar="LEVEL",
        help="What has to come back: R4, R3, R2, R1 or R0.",
        autocompletion=complete.words("R4", "R3", "R2", "R1", "R0"),
    ),
]
Times = Annotated[int, typer.Option("--times", "-n", metavar="N", min=0, help="How often it is repeated; 0 for not at all.")]
Junit = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write run and checks as JUnit XML.")]
Report = Annotated[Path | None, typer.Option("--report", metavar="FILE.html|.md", help="Write the report of the run.")]
Capsule = Annotated[Path | None, typer.Option("--capsule", metavar="FILE.zip", help="Write the capsule of the run.")]


@dataclass(frozen=True)
class _Wanted:
    """What is to be done with the run, and which files are wanted of it."""

    level: Level
    times: int
    junit: Path | None
    report: Path | None
    capsule: Path | None


class _Reporter(output.TerminalReporter):
    """Plain lines, and the notes for annotations."""

    def __init__(self) -> None:
        super().__init__()
        self.live = False
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
        super().note(text)


def ci(
    uri: opt.Uri = ".",
    entry_point: opt.EntryPoint = "main",
    revision: opt.Revision = None,
    param: opt.Params = None,
    params_file: opt.ParamsFile = None,
    env_manager: opt.EnvManager = "auto",
    as_of: opt.AsOf = "commit",
    locked: opt.Locked = False,
    at_least: AtLeast = "R1",
    times: Times = 1,
    junit: Junit = None,
    report: Report = None,
    capsule: Capsule = None,
    deterministic: opt.Deterministic = False,
    audit: opt.Audit = False,
    audit_strict: opt.AuditStrict = False,
    trust: opt.Trust = False,
    timeout: opt.Timeout = None,
    experiment: opt.Experiment = None,
    json: opt.Json = False,
) -> int:
    """Run a project, repeat it, and say whether its result came back; for CI.

    On GitHub Actions the log is folded, problems are annotations and the report is the summary of the job; on GitLab the log is
    folded. What the project prints cannot give commands to the CI system. The exit code is that of `run` where the run fails, and
    that of `reproduce` where it is not good enough.
    """
    from runproj.ci import Words, system
    from runproj.cli.lock import lock_options
    from runproj.core.plan import Request, RunOptions
    from runproj.core.source import Source
    from runproj.settings import parse_duration

    level = _level(at_least)
    if report and report.suffix.lower() not in (".html", ".htm", ".md"):
        raise UsageError(f"{report} is neither a name of HTML nor of Markdown", fix=f"--report {report.with_suffix('.html')}")
    options = RunOptions(
        experiment=experiment,
        timeout=parse_duration(timeout) if timeout else None,
        deterministic=deterministic,
        audit=opt.audit_word(audit=audit, strict=audit_strict),
    )
    lock = lock_options(env_manager, None, as_of, relock=False, strict=False, installer="uv", offline=False, locked=locked)
    given = opt.given(param, params_file)
    request = Request(Source(uri, revision), entry_point, given, lock=lock, options=options, trust=trust)
    return _Job(request, _Wanted(level, times, junit, report, capsule), Words(system(os.environ)), json=json).done()


def _level(text: str) -> Level:
    from runproj.core.verdict import Level

    levels = {level.value: level for level in Level if level is not Level.FAILED}
    if text.upper() not in levels:
        raise UsageError(f"There is no level {text!r}", fix=f"Levels: {', '.join(levels)}.")
    return levels[text.upper()]


class _Job:
    """One `runproj ci`."""

    def __init__(self, request: Request, wanted: _Wanted, words: Words, *, json: bool) -> None:
        from runproj.settings import load
        from runproj.wiring import Wiring

        self.request, self.wanted, self.words, self.json = request, wanted, words, json
        self.reporter = _Reporter()
        self.wiring: Wiring = Wiring(load(), self.reporter, tee=(2, 2) if json else (1, 2))
        self.run: Run | None = None
        self.verdict: Verdict | None = None

    def done(self) -> int:
        self.wiring.recover()
        error = ""
        try:
            self._run()
            if self.run and self._finished and self.wanted.times:
                self._reproduce()
        except RunprojError as failure:
            error = str(failure)
            self._say(self.words.annotation("error", failure.what, "\n".join(filter(None, (failure.why, failure.fix)))))
            raise
        finally:
            self._write_files(error)
        return self._ended()

    @property
    def _finished(self) -> bool:
        from runproj.core.run import RunStatus

        return self.run is not None and self.run.status is RunStatus.FINISHED

    def _say(self, lines: list[str]) -> None:
        """To the log, in order with what others write there."""
        for line in lines:
            output.say(line) if self.json else output.write_now(line)

    @contextlib.contextmanager
    def _section(self, name: str, title: str) -> Iterator[None]:
        self._say(self.words.begin(name, title))
        try:
            yield
        finally:
            self._say(self.words.end(name))

    def _run(self) -> None:
        from runproj import runner

        with self._section("runproj_run", f"runproj run {self.request.source.uri} -e {self.request.entry_point}"):
            use = self.wiring.services()
            planned = runner.plan(self.request, use)
            self.run = runner.start(planned, use, self.wiring.leases, on_created=lambda _: None)
        self._annotate_notes()

    def _reproduce(self) -> None:
        from runproj.reproduce.replay import Reproduction, Wishes

        assert self.run
        with self._section("runproj_reproduce", f"runproj reproduce {self.run.id[:8]}"):
            wishes = Wishes(times=self.wanted.times, trust=self.request.trust)
            self.verdict = Reproduction(self.run, self.wiring.services(), self.wiring.leases, wishes).judge()
        self._annotate_notes()

    def _annotate_notes(self) -> None:
        from runproj.ci import System

        if self.words.system is System.GITHUB:  # elsewhere the note itself is in the log
            for note in self.reporter.notes:
                self._say(self.words.annotation("warning", "runproj", note))

    def _ended(self) -> int:
        """The last lines, and the exit code."""
        from runproj.core.run import TagName
        from runproj.core.views import CiView

        assert self.run
        code = int(self.run.tag(TagName.EXIT_CODE) or 1) if not self._finished else 0
        said = f"{self.run.status.value} {self.run.name} ({self.run.id[:8]})"
        if code:
            self._say(self.words.annotation("error", said, self.run.tag(TagName.REASON) or f"exit code {code}"))
        elif self.verdict:
            good = self.verdict.level.rank >= self.wanted.level.rank
            code = 0 if good else self.verdict.level.exit_code or 1
            kind, demanded = ("notice", "") if good else ("error", f" {self.wanted.level.value} was demanded.")
            reason = "\n".join(replay.reason for replay in self.verdict.replays if replay.reason)
            text = f"{self.verdict.level.value}: {self.verdict.words}.{demanded}\n{reason}".strip()
            self._say(self.words.annotation(kind, said, text))
        if self.json:
            output.write_json(CiView(self.wiring.view(self.run), self.verdict, code))
        return code

    def _write_files(self, error: str) -> None:
        """What is kept of the job: also of one that failed."""
        from runproj.carrying import Carrying
        from runproj.ci import document, summary
        from runproj.files import atomic_write

        wanted = self.wanted
        if wanted.junit:
            atomic_write(wanted.junit.absolute(), document(self.run, self.verdict, error, wanted.level))
        if self.run is None or error:
            return
        carrying = Carrying(self.wiring, Path.cwd())
        if wanted.report:
            text = carrying.report(self.run.id, markdown=wanted.report.suffix.lower() == ".md")
            atomic_write(wanted.report.absolute(), text)
        if page := os.environ.get("GITHUB_STEP_SUMMARY"):
            with contextlib.suppress(OSError), Path(page).open("a", encoding="utf-8") as file:
                file.write(summary(self.verdict, self.reporter.notes) + carrying.report(self.run.id, markdown=True) + "\n")
        if wanted.capsule and self._finished:
            from runproj.capsule.pack import Choices

            carrying.pack(self.run.id, wanted.capsule.absolute(), Choices())

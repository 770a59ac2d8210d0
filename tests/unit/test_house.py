"""The house rules that no linter knows: who starts processes, who prints, what must not be written anywhere."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "runproj"
MODULES = sorted(SOURCE.rglob("*.py"))
TOP_LEVEL = {
    ".ci",
    ".gitattributes",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "benchmarks",
    "docs",
    "example_backends",
    "example_projects",
    "pyproject.toml",
    "schemas",
    "src",
    "tests",
}
FORBIDDEN = ("py" + "pi.org", "python" + "hosted.org", "/ro" + "ot/", "/wo" + "rk/", "/tm" + "p/rpenv", "TO" + "DO", "FIX" + "ME")
"""Hosts of package registries, folders of the machine this was written on, and promises.  Split, so as not to be found here."""


def tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def calls_of(path: Path) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}


def test_only_usual_files_at_the_top() -> None:
    assert {name.split("/")[0] for name in tracked()} <= TOP_LEVEL


def test_nothing_forbidden_is_written_anywhere() -> None:
    found = []
    for name in tracked():
        text = (ROOT / name).read_bytes().decode(errors="replace")
        found += [f"{name}: {word}" for word in FORBIDDEN if word in text]
    assert not found


def test_every_module_says_what_it_is_for() -> None:
    silent = [name_of(path) for path in MODULES if not (ast.get_docstring(ast.parse(path.read_text())) or "").strip()]
    assert not silent


def test_frozen_values_are_cheap_to_define() -> None:
    """By the decorator of `core/values.py`; and their defaults are computed for each of them, not once."""
    dear, shared = [], []
    for path in MODULES:
        text = path.read_text()
        if "@dataclass(frozen=True)\n" in text and "from runproj.core.values import dataclass" not in text:
            dear.append(name_of(path))
        for kind in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef) and node.decorator_list):
            calls = [item.value for item in kind.body if isinstance(item, ast.AnnAssign) and isinstance(item.value, ast.Call)]
            shared += [
                f"{name_of(path)}: {ast.unparse(call)}" for call in calls if ast.unparse(call.func) not in ("field", "frozenset")
            ]
    assert (dear, shared) == ([], [])


def test_no_file_is_too_long() -> None:
    long = {name_of(path): len(path.read_text().splitlines()) for path in MODULES}
    assert not {name: length for name, length in long.items() if length > 400}


def test_no_function_is_too_long_or_takes_too_much() -> None:
    """Commands are left out of the count of parameters: Typer makes an option of each."""
    found = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or 0) - node.lineno + 1
                positional = [argument.arg for argument in node.args.args if argument.arg not in ("self", "cls")]
                command = path.parent.name == "cli"
                if (length > 50 and not command) or (len(positional) > 7 and not command):
                    found.append(f"{name_of(path)}: {node.name} ({length} lines, {len(positional)} parameters)")
    assert not found


def test_one_module_starts_processes() -> None:
    starting = {
        name_of(path)
        for path in MODULES
        if calls_of(path)
        & {
            "subprocess.Popen",
            "subprocess.run",
            "subprocess.check_output",
            "subprocess.call",
            "subprocess.check_call",
            "os.system",
        }
    }
    assert starting == {"proc.py", "testing.py"}  # the suite for backends runs the program as its users do
    forking = {name_of(path) for path in MODULES if calls_of(path) & {"os.fork", "os.posix_spawn", "pty.fork", "os.execvpe"}}
    assert forking <= {"guard.py", "apart.py"}


def test_git_has_one_door() -> None:
    using = {name_of(path) for path in MODULES if any(name == "git" or name.startswith("git.") for name in imports_of(path))}
    assert using, "nobody uses GitPython"
    assert all(name.startswith("source/") for name in using), using


def test_only_the_command_line_prints_and_exits() -> None:
    talking = {
        name_of(path)
        for path in MODULES
        if calls_of(path) & {"print", "sys.stdout.write", "sys.stderr.write", "sys.exit", "exit", "quit", "os._exit"}
    }
    on_their_own = {
        "guard.py",
        "apart.py",
        "contained.py",
        "schemas.py",
        "environments/conda_worker.py",
        "backends/ssh_there.py",
    }  # programs in their own right
    assert {name for name in talking if not name.startswith("cli/")} <= on_their_own
    leaving = {name_of(path) for path in MODULES if "sys.exit" in calls_of(path)}
    assert leaving <= {"cli/main.py"} | on_their_own


def test_nobody_changes_this_process() -> None:
    changing = {name_of(path) for path in MODULES if calls_of(path) & {"os.chdir", "os.putenv", "os.umask", "os.environ.update"}}
    assert not changing


def test_yaml_is_read_in_one_place() -> None:
    reading = {name_of(path) for path in MODULES if "yaml" in imports_of(path)}
    assert all(name.startswith("descriptor/") for name in reading), reading


def test_no_shell_for_our_own_commands() -> None:
    assert not [name_of(path) for path in MODULES if re.search(r"\bshell\s*=\s*True\b", path.read_text())]


def readme_commands() -> list[str]:
    """The two commands of the README: the first indented or fenced lines after the headings that announce them."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", text, re.S)
    return [block.replace("\\\n", " ").strip() for block in blocks[:2]]


@pytest.mark.parametrize("index", [0, 1])
def test_ci_runs_the_commands_of_the_readme(index: int) -> None:
    command = " ".join(readme_commands()[index].split())
    script = " ".join((ROOT / ".ci" / "run").read_text().split())
    assert command in script


def test_changelog_names_this_version() -> None:
    from runproj import __version__

    text = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{__version__}]" in text or "## [Unreleased]" in text


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for page in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "example_projects").rglob("*.md"),
    ]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and not target.startswith("mailto:") and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken


def test_every_page_is_reachable_from_the_index() -> None:
    docs = ROOT / "docs"
    linked = {
        (page.parent / target).resolve()
        for page in docs.rglob("*.md")
        for target in re.findall(r"\]\(([^)#\s]+\.md)(?:#[^)]*)?\)", page.read_text())
    }
    lost = [
        page.relative_to(docs).as_posix()
        for page in docs.rglob("*.md")
        if page != docs / "index.md" and page.resolve() not in linked
    ]
    assert not lost

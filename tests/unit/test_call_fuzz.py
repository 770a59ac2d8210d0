"""Whatever a value contains, and wherever the template puts it: it arrives byte-identical, and nothing of it is executed."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runproj.core.call import Given
from runproj.core.parameters import bind
from runproj.core.project import Command, EntryPoint, Parameter

CHILD = r"""#!/usr/bin/perl
my $data = "";
if (@ARGV && $ARGV[0] eq "--stdin") { local $/; $data = <STDIN>; }
print join(",", map { unpack("H*", $_) } @ARGV, $data);
"""
"""In the language that starts fastest: it is started a thousand times.  Nothing in its answer means anything to a shell."""

FRAGMENTS = [
    *"'\"$`\\;&|<>(){}[]*?~!#%^= \n\t\r\x01\x02\x1b\x7f-é\u2028\u2019\U0001f600\ufeff\xa0",
    *("", "--", "日本", "touch canary;", "$(touch canary)", "`touch canary`", "${HOME}", "$HOME", "{v0}", "{{v0}}", "{}", "{0}"),
    *("%s", "\\n", "EOF\n", "\nEOF\n", "\nEND_0\n", "'; touch canary #", '"; touch canary #', "\n touch canary\n", "$((touch))"),
    *("a[$(touch canary)]", "<<EOF", "&& touch canary", "|| touch canary", "-n", "-e", "!!", "~root", "${_rp_1}", "$1", "$@"),
    *("\\\n", "''", '""', "$'\\x41'", "x" * 300, "None", "0.1"),
]


def nasty(source: random.Random) -> str:
    return "".join(source.choice(FRAGMENTS) for _ in range(source.randint(0, 6)))


@pytest.fixture
def show(tmp_path: Path) -> dict[str, str]:
    """A program `show` on PATH that prints its arguments in hexadecimal; the last one is what it read from standard input."""
    program = tmp_path / "bin" / "show"
    program.parent.mkdir()
    program.write_text(CHILD)
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:{os.environ['PATH']}"}


def told(printed: str) -> list[str]:
    return [bytes.fromhex(word).decode() for word in printed.split(",")]


def run(
    template: str | tuple[str, ...], values: list[str], env: dict[str, str], cwd: Path, extras: list[str] | None = None
) -> str:
    command = Command(template) if isinstance(template, str) else Command(argv=template)
    names = [f"v{number}" for number in range(len(values))]
    entry_point = EntryPoint("main", command, tuple(Parameter(name) for name in names))
    given = [Given(name, value) for name, value in zip(names, values, strict=True)]
    given += [Given(f"x{number}", value) for number, value in enumerate(extras or ())]
    call, _ = bind(entry_point, given)
    done = subprocess.run(call.argv({}), env=env, cwd=cwd, capture_output=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr[:500]
    return done.stdout.decode("utf-8")


def each(form: str, count: int) -> str:
    return " ".join(form.replace("@", f"{{v{number}}}") for number in range(count))


SEPARATOR = "\n=-=-=\n"

WORDS = {
    "bare": ("show @@", "@", "@"),
    "bare, by a shell": ("true; show @@", "@", "@"),
    "single quotes": ("show @@", "'@'", "@"),
    "single quotes, by a shell": ("true && show @@", "'a @ b'", "a @ b"),
    "double quotes": ("show @@", '"@"', "@"),
    "double quotes, by a shell": ("true && show @@ > /dev/stdout", '"a\\"@\\$x"', 'a"@$x'),
    "option": ("show @@", "--x=@", "--x=@"),
    "option, by a shell": ("show @@ | cat", "--x=@", "--x=@"),
    "ansi quotes": ("show @@", "$'\\t@\\''", "\t@'"),
    "escaped": ("show @@ ;", "\\@", "@"),
    "escaped in quotes": ("show @@ ;", '"\\@"', "\\@"),
    "substitution": ('x=$(show @@); printf %s "$x"', "@", "@"),
    "substitution, quotes in quotes": ('printf %s "$(show @@)"', '"@"', "@"),
    "substitution, single quotes": ('printf %s "$(show @@ | cat)"', "'@'", "@"),
    "substitution in a substitution": ('printf %s "$(printf %s "$(case x in x) show @@;; esac)")"', '"@"', "@"),
    "backticks": ('printf %s "`show @@`"', "@", "@"),
    "backticks, quotes": ('x=`show @@`; printf %s "$x"', "'a@'", "a@"),
    "process substitution": ("cat <(show @@)", "@", "@"),
    "default of a variable": ("show @@", "${UNSET_X:-@}", "@"),
    "default of a variable in quotes": ("show @@", '"${UNSET_X:-a @}"', "a @"),
    "subshell": ("(cd / && show @@)", "@", "@"),
    "loop": ("for i in 1; do show @@; done", "@", "@"),
    "function": ('f() { show "$@"; }; set -- 1; f @@', "@", "@"),
    "test": ('[[ "{v0}" == {v0} ]] && case {v0} in "{v0}") show @@;; esac', "@", "@"),
    "array": ('a=(@@); show "${a[@]}"', "@", "@"),
    "assignment": ("X={v0} Y='{v0}' bash -c 'test \"$X\" = \"$Y\"' && show @@", "@", "@"),
    "after a comment": ("# {v0} it's \"\nshow \\\n @@ # '{v0}'", "@", "@"),
}
"""Context → command, how each value is written in it, and how it arrives."""


def check(context: str, values: list[str], env: dict[str, str], cwd: Path) -> None:
    command, form, arrives = WORDS[context]
    words = told(run(command.replace("@@", each(form, len(values))), values, env, cwd))
    assert words == [*(arrives.replace("@", value) for value in values), ""]


def heredoc(kind: str, values: list[str], env: dict[str, str], cwd: Path) -> None:
    body = SEPARATOR.join(f"{{v{number}}}" for number in range(len(values)))
    templates = {
        "unquoted": f"show --stdin <<EOF\n{body} $((1+1)) \\$x\nEOF\n",
        "quoted": f"show --stdin <<'EOF'\n{body} $((1+1)) \\$x `\\\\\nEOF\n",
        "quoted, tabs": f'show --stdin {{v0}} <<-"E F" | cat\n\t{body}\n\tE F\n',
        "escaped": f"cat <<\\EOF | show --stdin\n{body}\nEOF\n",
        "here-string": "show --stdin <<< {v0}",
        "here-string in quotes": "show --stdin <<< '{v0}'",
        "substitution": f'x="$(cat <<EOF\n{body}.\nEOF\n)"; show --stdin "$x"',
    }
    *words, data = told(run(templates[kind], values, env, cwd))
    joined = SEPARATOR.join(values)
    expected: dict[str, tuple[list[str], str]] = {
        "unquoted": ([], f"{joined} 2 $x\n"),
        "quoted": ([], f"{joined} $((1+1)) \\$x `\\\\\n"),
        "quoted, tabs": ([values[0]], f"{joined}\n"),
        "escaped": ([], f"{joined}\n"),
        "here-string": ([], f"{values[0]}\n"),
        "here-string in quotes": ([], f"{values[0]}\n"),
        "substitution": ([f"{joined}."], ""),
    }
    assert (words[1:], data) == expected[kind]


HEREDOCS = ("unquoted", "quoted", "quoted, tabs", "escaped", "here-string", "here-string in quotes", "substitution")
TAILS = ("", "\n", "  # a note {v0}", " \\\n", "\n\n  \n# end\n", ";", " > /dev/stdout", " | cat\n")


def extras(tail: str, values: list[str], env: dict[str, str], cwd: Path) -> None:
    *words, _ = told(
        run(f"show 1{tail}" if "|" not in tail else f"echo | show 1 {tail.strip()[5:]}", values[:1], env, cwd, values)
    )
    assert words == ["1", *(word for number, value in enumerate(values) for word in (f"--x{number}", value))]


def argv_list(values: list[str], env: dict[str, str], cwd: Path) -> None:
    words = told(run(("show", *(f"a{{v{n}}}" for n in range(len(values)))), values, env, cwd))
    assert words == [*(f"a{value}" for value in values), ""]


def everything(values: list[str], env: dict[str, str], cwd: Path) -> None:
    for context in WORDS:
        check(context, values, env, cwd)
    for kind in HEREDOCS:
        heredoc(kind, values, env, cwd)
    argv_list(values, env, cwd)


def test_ten_thousand_values_arrive_in_every_context(show: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    source = random.Random(20)
    for _ in range(10):
        everything([nasty(source) for _ in range(1000)], show, folder)
    assert list(folder.iterdir()) == []


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1, max_size=30))
def test_any_text_arrives_in_every_context(show: dict[str, str], tmp_path: Path, values: list[str]) -> None:
    folder = tmp_path / "work"
    folder.mkdir(exist_ok=True)
    everything(values, show, folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("tail", TAILS)
def test_undeclared_parameters_follow_the_last_word_of_the_command(show: dict[str, str], tmp_path: Path, tail: str) -> None:
    source = random.Random(len(tail))
    for _ in range(3):
        extras(tail, [nasty(source) for _ in range(100)], show, tmp_path)
    assert not list(tmp_path.rglob("canary"))


def test_a_value_as_long_as_the_system_takes(show: dict[str, str], tmp_path: Path) -> None:
    value = "é'" * 43690  # 131070 bytes
    assert told(run("true; show '{v0}'", [value], show, tmp_path))[0] == value

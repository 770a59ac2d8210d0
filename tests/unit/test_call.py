"""Command templates: which become an argv, which need a shell, what stands for a placeholder, and what is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from runproj.codec import from_json, to_json
from runproj.core.call import BoundValue, Call, Given, items
from runproj.core.parameters import bind
from runproj.core.project import Command, EntryPoint, Parameter, ParameterType
from runproj.errors import DescriptorError, ParameterError

EVIL = "a[$(touch canary)]"


def shell(text: str) -> Command:
    return Command(text)


def call(template: str | tuple[str, ...], *extra: Given, **values: str) -> Call:
    command = shell(template) if isinstance(template, str) else Command(argv=template)
    entry_point = EntryPoint("main", command, tuple(Parameter(name) for name in values))
    return bind(entry_point, [*(Given(name, value) for name, value in values.items()), *extra])[0]


@pytest.mark.parametrize(
    ("template", "argv"),
    [
        ("python train.py {x}", ("python", "train.py", "a b")),
        ("  python  train.py --x={x} '{x}' \"-{x}-\"\n", ("python", "train.py", "--x=a b", "a b", "-a b-")),
        ("python train.py \\\n  --x {x} \\\n\n", ("python", "train.py", "--x", "a b")),
        ("find -name {x} -exec cat {} \\;", ("find", "-name", "a b", "-exec", "cat", "{}", ";")),
        ("awk '{print $1}' '{{x}}' \\{{x}}", None),
        ("awk '{print $1}' '{{x}}'", ("awk", "{print $1}", "{x}")),
        ('python t.py \'{"a": {"b": {x}}}\'', ("python", "t.py", '{"a": {"b": a b}}')),
        ("{x} y", ("a b", "y")),
        ("python t.py ''", ("python", "t.py", "")),
        ('python t.py "it\'s"', ("python", "t.py", "it's")),
        ("python t.py {x} > log", None),
        ("python t.py *.csv", None),
        ("python t.py ~/x", None),
        ("python t.py $HOME", None),
        ("python t.py ${x}", None),
        ("python t.py {a,b}", None),
        ("python t.py a # note", None),
        ("X=1 python t.py", None),
        ("cd sub", None),
        ("if true; then python t.py; fi", None),
        ("./train.sh {x}", None),
        ("python a.py\npython b.py", None),
        ('python t.py "$HOME"', None),
        ("python 'open", None),
    ],
)
def test_one_simple_command_becomes_its_argv_and_anything_else_a_script(template: str, argv: tuple[str, ...] | None) -> None:
    made = call(template, x="a b").argv({})
    assert made == argv if argv else made[:2] == ("bash", "-c")


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{x}}", "{x}"),
        ("${x}", "${x}"),
        ("${{x}}", "${x}"),
        ("{{{x}}}", "{1}"),
        ("{}", "{}"),
        ("{0}", "{0}"),
        ("{a,b}", "{a,b}"),
        ("{1..3}{a..c}", "{1..3}{a..c}"),
        ('{"a": {"b": [{}]}}', '{"a": {"b": [{}]}}'),
        ("${V:-{x}}", "${V:-1}"),
        ("{ x }", "{ x }"),
        ("}} {{", "} {"),
        ("{a-b} {a.b}", "2 3"),
    ],
)
def test_only_names_in_braces_are_placeholders(template: str, text: str) -> None:
    values = {"x": "1", "a-b": "2", "a.b": "3"}
    assert call((f"_{template}",), **values).argv({}) == (f"_{text}",)


def test_a_placeholder_without_a_parameter_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(DescriptorError) as caught:
        call("python t.py {learning-rat}", learning_rate="1")
    assert "learning-rat" in caught.value.what
    assert "Did you mean 'learning_rate'?" in caught.value.why
    assert "{{learning-rat}}" in caught.value.fix


@pytest.mark.parametrize(
    "template",
    [
        "echo $(( {x} + 1 ))",
        "echo $((1 + $(( {x} ))))",
        "(( {x} > 1 )) && echo",
        "for ((i=0; i<{x}; i++)); do :; done",
        "let y={x}",
        'let "y={x}"',
        "[[ {x} -eq 1 ]] && echo",
        "[[ a == b && {x} -gt 1 ]] && echo",
        "[[ -v {x} ]] && echo",
        "echo $[ {x} ]",
        'echo "$(( {x} ))"',
        "cat <<EOF\n$(( {x} ))\nEOF",
        "echo ${V:{x}}",
        'echo "${V:{x}:2}"',
        "echo ${V[{x}]}",
        "a[{x}]=1",
        "declare -i n={x}; echo",
    ],
)
def test_where_bash_computes_only_numbers_are_taken(template: str) -> None:
    for text in (EVIL, "HOME", "1+1", ""):
        with pytest.raises(ParameterError, match="'x' stands where the shell computes"):
            call(template, x=text)
    assert call(template, x="-2").argv({})


@pytest.mark.parametrize(
    "template",
    [
        'bash -c "echo {x}"',
        "bash -c 'echo {x}'",
        "bash -o pipefail -c {x}",
        'true && sudo sh -ec "{x}"',
        "eval echo {x}",
        'eval "echo {x}"',
        'python -c "print({x})"',
        "python -u -c 'print(\"{x}\")'",
        "conda run -n e python3.9 -c {x}",
        "perl -ne '{x}'",
        "bash <<EOF\necho {x}\nEOF",
        "python - <<'EOF'\nprint({x})\nEOF",
        "unset {x}; echo",
        "printf -v {x} 1; echo",
        "test -v {x}",
        "read {x}; echo",
        "export {x}; echo",
        "trap {x} EXIT",
        "ssh host python t.py {x}",
        "make train LR={x}",
        ("bash", "-c", "echo {x}"),
        ("env", "A=1", "python", "-c{x}"),
    ],
)
def test_a_value_in_program_text_has_to_be_a_plain_word(template: str | tuple[str, ...]) -> None:
    for text in (EVIL, "; touch canary", "1 2", "'"):
        with pytest.raises(ParameterError, match="'x' is part of program text"):
            call(template, x=text)
    assert call(template, x="runs/0.1").argv({})


@pytest.mark.parametrize(
    "template",
    [
        "bash run.sh -c {x}",
        "python train.py -c {x}",
        "bash -e run.sh {x}",
        "export LR={x}; python t.py",
        "LR={x} python t.py",
        "bash -c 'python t.py \"$1\"' bash {x}",
        "[ {x} == 1 ]",
        "[[ {x} == 1 ]]",
        "python -m t --lr {x}",
        "python t.py <<EOF\n{x}\nEOF",
    ],
)
def test_arguments_take_any_value(template: str) -> None:
    assert call(template, x=EVIL).argv({})


def test_undeclared_values_are_not_passed_twice_where_the_command_has_a_place_for_them() -> None:
    assert call("python t.py {y}", Given("y", "1"), Given("z", "2")).argv({}) == ("python", "t.py", "1", "--z", "2")
    assert call("true; python t.py {y}", Given("y", "1")).argv({})[2].count("_rp_") == 2
    assert call("true; python t.py {y}", Given("y", "1")).shown() == "true; python t.py 1"


@pytest.mark.parametrize(
    "end",
    [
        "for x in 1; do a; done",
        "if a; then b; fi",
        "[[ a ]]",
        "f() { a; }",
        "case a in b) c;; esac",
        "for x in 1; do a; done > log",
    ],
)
def test_undeclared_values_need_a_command_that_takes_them(end: str) -> None:
    with pytest.raises(ParameterError, match="takes no undeclared parameters"):
        call(end, Given("y", "1"))
    with pytest.raises(ParameterError, match="such a value"):
        call("make", Given("y", "$(shell touch canary)"))
    with pytest.raises(ParameterError, match="such a value"):
        call("true; eval a", Given("y", "$(touch canary)"))


def test_the_environment_of_the_command_holds_no_values(tmp_path: Path) -> None:
    argv = call("true; env; echo $# $0", x="1", y="2").argv({})
    done = subprocess.run(argv, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True)
    assert "_rp" not in done.stdout
    assert done.stdout.endswith("0 bash\n")


def test_a_failing_line_is_counted_as_in_the_template(tmp_path: Path) -> None:
    argv = call("echo {x}\nno-such-command {x}", x="1").argv({})
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert "line 2: no-such-command" in done.stderr


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (ParameterType.LIST, '["a b", 2, {"c": null}]', ("a b", "2", '{"c": null}')),
        (ParameterType.LIST, "a,b", ("a", "b")),
        (ParameterType.LIST, "[]", ()),
        (ParameterType.LIST, "", ()),
        (ParameterType.STRING, "a,b", ("a,b",)),
        (ParameterType.STRING, "", ()),
    ],
)
def test_a_list_can_become_several_words(kind: ParameterType, value: str, words: tuple[str, ...]) -> None:
    for template, expected in (
        (Command(argv=("t", "{x...}", "{x}")), ("t", *words, value)),
        (shell("printf '<%s>' 0 {x...} '{x}' | cat"), None),
    ):
        made = Call("main", template, (BoundValue("x", value, kind),)).argv({})
        if expected:
            assert made == expected
        else:
            done = subprocess.run(made, capture_output=True, text=True, check=True)
            assert done.stdout == "".join(f"<{word}>" for word in ("0", *words, value))


@pytest.mark.parametrize("template", ["t --x={x...}", "true; t '{x...}'", ("t", "a{x...}")])
def test_several_words_need_a_place_of_their_own(template: str | tuple[str, ...]) -> None:
    with pytest.raises(DescriptorError, match="a word of its own"):
        call(template, x="1")


def test_items() -> None:
    assert items('["é", true, 1.0]') == ("é", "true", "1.0")
    assert items("[1, oops") == ("[1", " oops")


def test_secrets_are_given_apart_and_masked() -> None:
    entry_point = EntryPoint("main", shell("login {token} && t"), (Parameter("token", ParameterType.SECRET),))
    made, _ = bind(entry_point, [Given("token", "s3cr3t")])
    assert "s3cr3t" not in to_json(made)
    assert "s3cr3t" in made.argv({"token": "s3cr3t"})
    assert made.shown() == "login '***' && t"
    with pytest.raises(ParameterError, match="secret parameter 'token'"):
        made.argv({})


@pytest.mark.parametrize(
    "template",
    ["t {x} '{x}' \"{x}\"", "true; t {x} '-{x}' \"-{x}\" $'-{x}' \"$(t {x})\"", "cat - <<'EOF' > o\n{x}\nEOF", "cat <<E\n{x}\nE"],
)
def test_what_is_shown_can_be_typed(template: str, tmp_path: Path) -> None:
    program = tmp_path / "t"
    program.write_text("#!/bin/sh\nprintf '<%s>' \"$@\"\n")
    program.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    made = call(template, x='it\'s "$HOME" `x` \\ é', **({} if "<<" in template else {"y": "1"}))
    outputs = []
    for argv in (made.argv({}), ("bash", "-c", made.shown())):
        done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, check=True)
        outputs.append(done.stdout + ((tmp_path / "o").read_bytes() if (tmp_path / "o").exists() else b""))
    assert outputs[0] == outputs[1] != b""


def test_a_backslash_in_backticks_is_refused_where_a_value_is() -> None:
    with pytest.raises(DescriptorError, match="backticks"):
        call("echo `echo \\`{x}\\``", x="1")


def test_a_value_in_the_delimiter_of_a_here_document_is_refused() -> None:
    with pytest.raises(DescriptorError, match="delimiter"):
        call("cat <<{x}\nx\n", x="1")


def test_deep_nesting_is_refused_quickly() -> None:
    with pytest.raises(DescriptorError, match="nested too deeply"):
        call("echo " + "$(" * 5000 + "{x}", x="1")


def test_an_argument_longer_than_the_system_takes_is_refused() -> None:
    with pytest.raises(ParameterError, match="128 KiB"):
        call(("t", "--name={x}"), x="y" * (128 * 1024 - 3))


def test_a_command_is_needed() -> None:
    with pytest.raises(DescriptorError, match="has no command"):
        call("")


def test_a_call_survives_json() -> None:
    made = call("t {x}", Given("z", "\u2028\x01"), x="é\n")
    assert from_json(Call, to_json(made)) == made

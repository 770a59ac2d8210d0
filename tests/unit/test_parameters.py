"""Values are bound to parameters: what fits each type, what is said about what does not, all at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runproj.core.call import BoundValue, Call, Given
from runproj.core.parameters import bind, describe
from runproj.core.project import Command, EntryPoint, Parameter, ParameterType
from runproj.descriptor import parse_given, read_params_file, resolve_paths
from runproj.errors import ParameterError

T = ParameterType


def entry(*parameters: Parameter, is_open: bool = True) -> EntryPoint:
    return EntryPoint("main", Command(argv=("t", *(f"{{{p.name}}}" for p in parameters))), parameters, open=is_open)


def problem(parameter: Parameter, value: str, *, is_open: bool = False) -> str | None:
    try:
        bind(entry(parameter, is_open=is_open), [Given(parameter.name, value)])
    except ParameterError as error:
        return str(error)
    return None


GOOD: list[tuple[ParameterType, tuple[str, ...]]] = [
    (T.INT, ("0", "-3", "+7", "1_000", "123456789012345678901234567890")),
    (T.FLOAT, ("0.1", "1e-3", "1E5", "-.5", "inf", "nan", "3")),
    (T.BOOL, ("true", "True", "FALSE", "0", "1", "yes", "No", "on", "off")),
    (T.STRING, ("", "anything $(x)", "é\n")),
    (T.PATH, ("a", "/b", "s3://bucket/x")),
    (T.URI, ("s3://b/x", "https://h", "file:///x", "runs:/1/a")),
    (T.LIST, ("[1, 2]", "a,b", "", "x")),
    (T.OBJECT, ('{"a": [1]}', "{}")),
]
BAD: list[tuple[ParameterType, tuple[str, ...]]] = [
    (T.INT, ("abc", "", "1.5", "1e3", "None", "0x10", "1 2")),
    (T.FLOAT, ("abc", "", "0,1", "None", "1e", "--1")),
    (T.BOOL, ("maybe", "", "2", "None")),
    (T.PATH, ("",)),
    (T.URI, ("data.csv", "/abs", "")),
    (T.LIST, ("[1, 2", '["a"')),
    (T.OBJECT, ("[1]", "a", "", "{", "{'a': 1}")),
]


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in GOOD for value in values])
def test_values_that_fit(kind: ParameterType, value: str) -> None:
    assert problem(Parameter("p", kind), value) is None
    assert problem(Parameter("p", kind), value, is_open=True) is None


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in BAD for value in values])
def test_values_that_do_not_fit(kind: ParameterType, value: str) -> None:
    found = problem(Parameter("p", kind), value)
    assert found is not None
    assert "'p'" in found


def test_an_error_names_parameter_type_and_value() -> None:
    assert problem(Parameter("lr", T.FLOAT, "0.1"), "abc", is_open=True) == (
        "Parameter 'lr' from -P: 'abc' is not a float (a number like 0.1 or 1e-3)\nParameters of 'main': lr (float, default 0.1)"
    )


@pytest.mark.parametrize("value", ["None", "none", "null", "10.0", "1e3"])
def test_mlprojects_may_give_ints_that_python_reads_otherwise(value: str) -> None:
    assert problem(Parameter("p", T.INT), value, is_open=True) is None
    assert problem(Parameter("p", T.INT), value) is not None


def test_a_default_that_does_not_fit_is_a_note_in_an_mlproject_and_can_be_given() -> None:
    parameter = Parameter("p", T.INT, "")
    call, notes = bind(entry(parameter), [])
    assert call.argv({}) == ("t", "")
    assert notes == ("The default of parameter 'p' does not fit: '' is not an int (a whole number)",)
    assert bind(entry(parameter), [Given("p", "")])[0].argv({}) == ("t", "")
    with pytest.raises(ParameterError, match="default of parameter 'p' does not fit"):
        bind(entry(parameter, is_open=False), [])
    assert bind(entry(Parameter("p", T.FLOAT, "None")), [])[1] == ()


def test_everything_missing_and_wrong_is_said_at_once() -> None:
    point = entry(Parameter("a"), Parameter("b"), Parameter("c", T.INT), Parameter("d", default="1"), is_open=False)
    with pytest.raises(ParameterError) as caught:
        bind(point, [Given("c", "x"), Given("e", "1"), Given("d", "1"), Given("d", "2", "p.yaml"), Given("-f", "")])
    assert caught.value.why.splitlines() == [
        "No value given for missing parameters: 'a', 'b'",
        "Parameter 'd' is given twice (-P, p.yaml)",
        "'-f' is no parameter name (letters, digits, `_`, `-`, `.`; at most 250; not first `-` or `.`)",
        "Parameter 'c' from -P: 'x' is not an int (a whole number)",
        "Parameter 'e' is not declared by entry point 'main'",
    ]
    assert caught.value.fix == "-P a=… -P b=…"


def test_one_missing_parameter() -> None:
    with pytest.raises(ParameterError, match="No value given for missing parameter: 'a'"):
        bind(entry(Parameter("a")), [])


@pytest.mark.parametrize("name", ["", "-x", ".x", "a b", "a=b", "a\n", "a$b", "../x", "a" * 251, "{a}", "a\0"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(ParameterError, match="no parameter name"):
        bind(entry(), [Given(name, "1")])


def test_undeclared_parameters_of_an_mlproject_are_passed_on_with_a_suggestion() -> None:
    point = entry(Parameter("learning_rate", default="1"))
    call, notes = bind(point, [Given("z", "1"), Given("learning-rat", "2 3")])
    assert call.argv({}) == ("t", "1", "--z", "1", "--learning-rat", "2 3")
    assert notes == (
        "Parameter 'z' is not declared by entry point 'main'; passed on as --z ….",
        "Parameter 'learning-rat' is not declared by entry point 'main'; passed on as --learning-rat …. "
        "Did you mean 'learning_rate'?",
    )
    for strict, is_open in ((True, True), (False, False)):
        with pytest.raises(ParameterError, match="Did you mean 'learning_rate'"):
            bind(entry(*point.parameters, is_open=is_open), [Given("learning-rat", "2")], strict=strict)


def test_a_script_that_declares_nothing_takes_everything_without_a_note() -> None:
    assert bind(entry(), [Given("x", "1")])[1] == ()


@pytest.mark.parametrize("declared", [True, False])
def test_texts_that_no_argument_can_hold(declared: bool) -> None:
    point = entry(Parameter("p")) if declared else entry()
    for value, words in (("a\0b", "NUL"), ("x" * (128 * 1024), "131072 bytes"), ("\udcff", "UTF-8")):
        with pytest.raises(ParameterError, match=words):
            bind(point, [Given("p", value)])
    assert bind(point, [Given("p", "x" * (128 * 1024 - 1))])


def test_min_max_and_choices() -> None:
    lr = Parameter("lr", T.FLOAT, minimum=0, maximum=1)
    assert problem(lr, "0") is None
    assert problem(lr, "1.0") is None
    assert "less than the least value, 0" in (problem(lr, "-0.1") or "")
    assert "more than the greatest value, 1" in (problem(lr, "1e9") or "")
    assert "compared" in (problem(lr, "nan") or "")
    color = Parameter("c", T.CHOICE, choices=("red", "green"))
    assert problem(color, "red") is None
    assert "is not one of red, green. Did you mean 'green'?" in (problem(color, "gren") or "")
    assert problem(Parameter("n", T.INT, choices=("1", "2")), "3")


def test_items_of_typed_lists() -> None:
    numbers = Parameter("n", T.LIST, declared_type="list[int]")
    assert problem(numbers, "[1, 2]") is None
    assert problem(numbers, "1,2") is None
    assert "item 'x' is not an int" in (problem(numbers, "1,x") or "")
    assert "item '1.5' is not an int" in (problem(numbers, "[1.5]") or "")


def test_optional_parameters_and_secrets_without_a_value_are_empty_texts() -> None:
    point = entry(Parameter("a", T.INT, required=False), Parameter("s", T.SECRET, required=False), is_open=False)
    call, _ = bind(point, [])
    assert call.argv({}) == ("t", "", "")
    assert [value.type for value in call.values] == [T.STRING, T.STRING]
    assert bind(point, [Given("s", "")])[0] == call


def test_a_secret_is_checked_but_never_held_or_shown() -> None:
    point = entry(Parameter("s", T.SECRET))
    call, _ = bind(point, [Given("s", "hush")])
    assert call.values == (BoundValue("s", None, T.SECRET, "-P"),)
    with pytest.raises(ParameterError) as caught:
        bind(point, [Given("s", "hush\0")])
    assert "hush" not in str(caught.value)
    with pytest.raises(ParameterError) as caught:
        bind(entry(Parameter("s", T.SECRET, choices=("a", "b"))), [Given("s", "hush")])
    assert "hush" not in str(caught.value)


def test_values_and_their_sources_are_recorded_raw() -> None:
    point = entry(Parameter("a", default="0.5 0.6"), Parameter("b"))
    call, _ = bind(point, [Given("b", "it's", "p.yaml"), Given("c", "x y")])
    assert call.values == (
        BoundValue("a", "0.5 0.6"),
        BoundValue("b", "it's", source="p.yaml"),
        BoundValue("c", "x y", source="-P", declared=False),
    )


def test_a_parameter_in_words() -> None:
    assert describe(Parameter("lr", T.FLOAT, "0.1")) == "lr (float, default 0.1)"
    assert describe(Parameter("c", T.CHOICE, choices=("a", "b"))) == "c (a | b)"
    assert describe(Parameter("n", declared_type="int32", required=False)) == "n (int32, optional)"


# -- as users write them


def test_the_first_equals_sign_splits() -> None:
    assert parse_given("a=b=c ") == Given("a", "b=c ")
    assert parse_given("a=") == Given("a", "")
    for text in ("a", "=b", ""):
        with pytest.raises(ParameterError, match="is not a parameter"):
            parse_given(text)


CONTENT = {"lr": 0.1, "n": 3, "flag": True, "name": "it's", "layers": [1, "a", None], "cfg": {"k": [1.5]}, "gone": None, "e": ""}


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".yml", ".txt"])
def test_a_file_of_parameters(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    path.write_text(json.dumps(CONTENT))
    given = {item.name: item.value for item in read_params_file(path)}
    assert given == {
        "lr": "0.1",
        "n": "3",
        "flag": "true",
        "name": "it's",
        "layers": '[1, "a", null]',
        "cfg": '{"k": [1.5]}',
        "e": "",
    }
    assert {item.source for item in read_params_file(path)} == {path.name}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.yaml", "lr: 0.00001\nn: 0010\ndate: 2020-01-01\nb: yes\ns: '1e-3'\nbig: 1e400\n"),
        ("p.json", '{"lr": 0.00001, "n": "0010", "date": "2020-01-01", "b": "yes", "s": "1e-3", "big": 1e400}'),
    ],
)
def test_values_of_a_file_travel_as_they_are_written(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    given = {item.name: item.value for item in read_params_file(tmp_path / name)}
    assert given == {"lr": "0.00001", "n": "0010", "date": "2020-01-01", "b": "yes", "s": "1e-3", "big": "1e400"}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.yaml", "a: 1\na: 2\n", "twice"),
        ("p.json", '{"a": 1, "a": 2}', "'a' is there twice"),
        ("p.yaml", "- 1\n", "mapping"),
        ("p.json", "[1]", "mapping"),
        ("p.yaml", "a: [1", "not valid YAML"),
        ("p.json", "{", "Expecting"),
        ("p.json", "[" * 100_000, "cannot be used"),
        ("p.yaml", "a: !!python/object/apply:os.system [id]\n", "tag"),
        ("p.yaml", "x" * (2 << 20), "larger"),
        ("p.yaml", b"\xff\xfe\xff", "not valid YAML"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, text: str | bytes, words: str) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ParameterError) as caught:
        read_params_file(tmp_path / name)
    assert words in str(caught.value)


def test_a_missing_and_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="cannot be used"):
        read_params_file(tmp_path / "none.yaml")
    (tmp_path / "p.yaml").write_text("# nothing\n")
    assert read_params_file(tmp_path / "p.yaml") == ()


# -- paths


def call_with(value: str, source: str = "-P") -> Call:
    return Call("main", Command(argv=("t", "{p}")), (BoundValue("p", value, T.PATH, source),))


def test_paths_are_found_where_the_user_is_or_in_the_project(isolated: Path) -> None:
    user, project = isolated / "user", isolated / "project"
    for folder, names in ((user, ("both", "mine")), (project, ("both", "theirs"))):
        folder.mkdir()
        for name in names:
            (folder / name).touch()

    def resolved(value: str, source: str = "-P") -> str:
        call = resolve_paths(call_with(value, source), project, user)
        assert call.values[0].value == value
        return call.argv({})[1]

    assert resolved("mine") == str(user / "mine")
    assert resolved("both") == str(user / "both")
    assert resolved("theirs") == "theirs"
    assert resolved("both", "default") == "both"
    assert resolved("both", "run 0123abcd") == "both"
    assert resolved("mine", "default") == str(user / "mine")
    assert resolved(str(user / "mine")) == str(user / "mine")
    assert resolved((user / "mine").as_uri()) == str(user / "mine")
    assert resolved("s3://bucket/key") == "s3://bucket/key"
    for value in ("gone", "x" * 5000, "file:///gone"):
        with pytest.raises(ParameterError, match="Parameter 'p' from -P: there is no file or folder"):
            resolved(value)


def test_all_missing_paths_are_named(tmp_path: Path) -> None:
    values = (BoundValue("a", "x", T.PATH), BoundValue("b", "y", T.PATH), BoundValue("c", "z"))
    with pytest.raises(ParameterError) as caught:
        resolve_paths(Call("main", Command(), values), tmp_path, tmp_path)
    assert "'x'" in caught.value.why
    assert "'y'" in caught.value.why

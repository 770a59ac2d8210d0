"""Scripts that mean the same to every shell are told from those that do not."""

from __future__ import annotations

import pytest

from runproj.core.dialect import needs_bash


@pytest.mark.parametrize(
    "script",
    [
        "python a.py --x 1 && python b.py | tee log; cat < log > out 2>&1",
        'for f in *.txt; do wc -l "$f"; done',
        'if [ -e "${A:-x}" ]; then . ./env.sh; fi',
        "set -e\nmkdir -p out\nexport A=1\npython train.py",
        '_rp_1=${1}; set -- ; python a.py "${_rp_1}" && exit 0',
        "echo done > file",
        "case $X in a|b) true;; esac",
        "cat <<EOF\n$A\nEOF\n",
    ],
)
def test_plain(script: str) -> None:
    assert needs_bash(script) == ""


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ("[[ -e x ]] && y", "[["),
        ("set -o pipefail; a | b", "set -o"),
        ("source env.sh && python a.py", "source"),
        ("python a.py &> log", "&>"),
        ("cp a.{txt,bak}", "{txt,bak}"),
        ("for i in {1..3}; do :; done", "{1..3}"),
        ("diff <(a) <(b)", "<("),
        ("A=(1 2)", "=("),
        ("python a.py ${A[@]}", "${A["),
        ("python a.py ${A//x/y}", "${A//"),
        ("python a.py ${A:0:1}", "${A:0"),
        ("cat <<< $A", "<<<"),
        ('test "$A" == b', "=="),
        ("((x = 1))", "(("),
        ("echo -e 'a\\tb'", "echo -e"),
        ("echo 'a\\tb'", "echo"),
        ('_rp_1=${1}; set -- ; echo "${_rp_1}"', "echo"),
        ("time python a.py", "time"),
        ("echo $HOSTNAME", "$HOSTNAME"),
    ],
)
def test_only_for_bash(script: str, what: str) -> None:
    assert needs_bash(script) == what

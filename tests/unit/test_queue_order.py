"""Who is next in the queue: by priority, then as they came; who needs much does not starve, and holds up only what it must."""

from __future__ import annotations

from dataclasses import replace

from runproj.core.queue import Entry, Worker, chosen, in_line, why_waiting

WORKER = Worker("w", 1, parallel=4, gpus=("0", "1"))


def entry(run: str, order: int = 0, priority: int = 0, slots: int = 1, gpus: int | None = 0) -> Entry:
    return Entry(run, run, order, 0, (), priority=priority, slots=slots, gpus=gpus)


def names(found: list[tuple[Entry, tuple[str, ...]]]) -> list[tuple[str, str]]:
    return [(item.run, ",".join(gpus)) for item, gpus in found]


def test_priority_comes_before_age() -> None:
    line = in_line([entry("young", 3), entry("old", 1), entry("urgent", 9, priority=1), entry("some time", 0, priority=-1)])
    assert [item.run for item in line] == ["urgent", "old", "young", "some time"]


def test_each_gpu_is_given_once_and_one_to_a_run_that_says_nothing() -> None:
    waiting = [entry("a", 1, gpus=None), entry("b", 2, gpus=1), entry("c", 3, gpus=None), entry("d", 4, gpus=0)]
    assert names(chosen(waiting, [], WORKER, 4, ["0", "1"])) == [("a", "0"), ("b", "1"), ("d", "")]
    without = replace(WORKER, gpus=())
    assert names(chosen(waiting, [], without, 4, [])) == [("a", ""), ("c", ""), ("d", "")]


def test_nobody_behind_takes_what_the_first_waits_for() -> None:
    large, small, plain = entry("large", 1, gpus=2), entry("small", 2, gpus=1), entry("plain", 3)
    assert names(chosen([large, small, plain], [], WORKER, 3, ["1"])) == [("plain", "")]
    assert names(chosen([large, small, plain], [], WORKER, 3, ["0", "1"])) == [("large", "0,1"), ("plain", "")]
    wide = entry("wide", 1, slots=3)
    assert names(chosen([wide, small, plain], [], WORKER, 2, ["0"])) == []


def test_what_can_never_run_here_holds_up_nobody() -> None:
    wide, many = entry("wide", 1, slots=5), entry("many", 2, gpus=3)
    assert names(chosen([wide, many, entry("a", 3)], [], WORKER, 4, ["0", "1"])) == [("a", "")]
    assert WORKER.lacks(wide) == "5 slots, and the worker has 4"
    assert WORKER.lacks(many) == "3 GPUs, and the worker has 2"
    assert why_waiting(many, [WORKER, replace(WORKER, gpus=("0", "1", "2"))]) == ""
    assert "3 GPUs" in why_waiting(many, [WORKER])
    assert "runproj worker" in why_waiting(many, [])


def test_of_those_that_were_submitted_together_so_many_run_as_was_said() -> None:
    several = [replace(entry(name, number), group="g", at_once=2) for number, name in enumerate("abcd")]
    assert names(chosen(several, [], WORKER, 4, [])) == [("a", ""), ("b", "")]
    assert names(chosen([*several[1:], entry("other", 9)], several[:1], WORKER, 3, [])) == [("b", ""), ("other", "")]

"""Rates, sums over time and timelines are what the records and attempts say."""

from __future__ import annotations

import numpy as np
import pytest

from ctrate_convert.checking.timeline import Freed
from ctrate_convert.reporting import course
from ctrate_convert.reporting.course import Bar, Outcome, Row, ShardRun
from ctrate_convert.reporting.course_charts import are_summed
from ctrate_convert.store.attempts import PastAttempt
from ctrate_convert.store.records.attempt import AttemptEnd, AttemptStart


def run_of(attempt: str, shard: int, start_s: float, lasted_s: float, failed: int = 0) -> ShardRun:
    return ShardRun(attempt, "node", shard, shard, start_s, lasted_s, 1000, 500, failed)


def attempt(
    name: str, tasks: tuple[int, ...], minute: int, outcome: str | None, **more: object
) -> PastAttempt:
    """An attempt of one minute on the first day of 1970."""
    start = AttemptStart(
        attempt=name, tasks=tasks, host="node", pid=1,
        started=f"1970-01-01T00:{minute:02d}:00+00:00", scheduler={},
    )  # fmt: skip
    if outcome is None:
        return PastAttempt(start, None, None, None)
    facts: dict[str, object] = {
        "attempt": name, "outcome": outcome, "reason": "", "traceback": "",
        "finished": f"1970-01-01T00:{minute + 1:02d}:00+00:00", "elapsed_s": 60.0, "shards_done": 0,
        "shards_failed": (), "samples_converted": 0, "samples_failed": 0, "max_rss_bytes": 0,
        **more,
    }  # fmt: skip
    return PastAttempt(start, None, AttemptEnd.model_validate(facts), None)


def test_no_byte_is_lost_in_the_rate() -> None:
    runs = [run_of("a", 0, 0.0, 10.0), run_of("a", 1, 5.0, 2.5), run_of("a", 2, 30.0, 0.0)]
    edges, speed = course.rate(runs, 7)
    assert (speed * np.diff(edges)).sum() == pytest.approx(3000)
    assert edges[0] == 0.0 and edges[-1] == pytest.approx(30.0, abs=0.01)
    assert course.rate([], 7)[1].size == 0


def test_sums_over_time_end_with_the_whole() -> None:
    steps = course.freed([Freed(float(at), 10) for at in range(1000)], 50)
    assert len(steps.times_s) <= 50
    assert steps.total[-1] == 10_000
    assert np.all(np.diff(steps.total) > 0)
    assert course.written([], 50).total.size == 0


def test_an_attempt_of_one_task_is_a_bar_and_a_relaunch_is_marked() -> None:
    attempts = [
        attempt("a", (3,), 0, "failed"),
        attempt("b", (3,), 2, None),
        attempt("c", (3,), 4, "done"),
        attempt("d", (3,), 6, "done"),
    ]
    (row,) = course.task_rows(attempts, [], {3: 3})
    assert row.name == "task 3"
    assert [bar.outcome for bar in row.bars] == [
        Outcome.FAILED, Outcome.OPEN, Outcome.DONE, Outcome.DONE,
    ]  # fmt: skip
    assert [bar.again for bar in row.bars] == [False, True, True, False]
    assert (row.bars[0].start_s, row.bars[0].end_s) == (0.0, 60.0)
    assert row.bars[1].end_s == 120.0  # nothing says that it lived any longer


def test_of_an_attempt_of_several_tasks_each_has_what_records_tell() -> None:
    attempts = [attempt("a", (0, 1, 2, 3), 0, "failed", shards_failed=(2,))]
    runs = [run_of("a", 0, 5.0, 10.0), run_of("a", 1, 8.0, 10.0, failed=1)]
    rows = course.task_rows(attempts, runs, {shard: shard for shard in range(4)})
    assert {row.name: row.bars[0].outcome for row in rows} == {
        "task 0": Outcome.DONE,
        "task 1": Outcome.PARTLY,
        "task 2": Outcome.FAILED,
    }  # of task 3 nothing is known
    assert (rows[0].bars[0].start_s, rows[0].bars[0].end_s) == (5.0, 15.0)


def test_rows_with_trouble_are_shown_first_in_their_own_order() -> None:
    rows = [Row(str(place), (Bar(0, 1, Outcome.DONE),)) for place in range(100)]
    rows[70] = Row("70", (Bar(0, 1, Outcome.FAILED), Bar(1, 2, Outcome.DONE, again=True)))
    shown = course.chosen_rows(rows, 3)
    assert [row.name for row in shown] == ["0", "1", "70"]


def test_the_mean_number_of_attempts_is_by_time_not_by_count() -> None:
    """Ten short attempts in turn are one at a time, not ten."""
    row = Row("node", tuple(Bar(float(at), at + 1.0, Outcome.DONE) for at in range(10)))
    _, counts = course.under_way([row], 0.0, 10.0, 2)
    assert counts[Outcome.DONE].tolist() == pytest.approx([1.0, 1.0])
    assert not are_summed([row])
    assert are_summed([Row("node", (Bar(0.0, 9.0, Outcome.DONE),) * 5)])
    assert are_summed([Row("node", row.bars * 41)])

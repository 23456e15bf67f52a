"""What Slurm 22.05 really printed, and what it means. Nothing here needs Slurm."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ctrate_convert.cluster.scheduler.query import (
    AccountRow,
    memory_bytes,
    minutes,
    parse_sacct,
    parse_squeue,
    seconds,
)

# An array 0-8%5 after four seconds: 0 done, 1 exit code 3, 2 out of memory, 4 requeued by hand, 5
# cancelled. The last element, 8, has the array's own raw id, 1.
SQUEUE = """\
1|5|7|ctrate-t|CANCELLED|None|c1n1|2026-11-22T20:42:26|2026-11-22T20:42:26|0|/x/a.sh o|
1|0|2|ctrate-t|COMPLETED|None|c1n1|2026-11-22T20:42:26|2026-11-22T20:42:26|0|/x/a.sh o|
1|1|3|ctrate-t|FAILED|NonZeroExitCode|c1n1|2026-11-22T20:42:26|2026-11-22T20:42:26|0|/x|
1|4|6|ctrate-t|PENDING|BeginTime||2026-11-22T20:42:30|2026-11-22T20:44:31|1|/x/a.sh o|
1|8|1|ctrate-t|PENDING|JobArrayTaskLimit||2026-11-22T20:42:26|N/A|0|/x/a|b.sh o|
"""

SACCT = """\
1_0|ctrate-t|COMPLETED|0:0|2026-11-22T20:42:26|2026-11-22T20:42:26|2026-11-22T20:42:29|3|c1n1||200M|1|00:01.500|1
1_0.batch|batch|COMPLETED|0:0|2026-11-22T20:42:26|2026-11-22T20:42:26|2026-11-22T20:42:29|3|c1n1|11964K||1|00:01.500|1
1_0.0|bash|COMPLETED|0:0|2026-11-22T20:42:26|2026-11-22T20:42:26|2026-11-22T20:42:29|3|c1n1|4704K||1|00:01.500|1
1_2|ctrate-t|FAILED|1:0|2026-11-22T20:42:26|2026-11-22T20:42:26|2026-11-22T20:42:27|1|c1n2||200M|3|00:01.500|1
1_2.batch|batch|FAILED|1:0|2026-11-22T20:42:26|2026-11-22T20:42:26|2026-11-22T20:42:27|1|c1n2|||3|00:01.500|1
1_2.0|bash|OUT_OF_MEMORY|0:125|2026-11-22T20:42:26|2026-11-22T20:42:26|2026-11-22T20:42:27|1|c1n2|||3|00:01.500|1
1_3|ctrate-t|NODE_FAIL|0:0|2026-11-22T20:42:26|2026-11-22T20:42:26|2026-11-22T20:42:46|20|c1n2||200M|4|00:01.500|1
1_5|ctrate-t|CANCELLED by 0|0:0|2026-11-22T20:42:26|2026-11-22T20:42:26|2026-11-22T20:42:30|4|c1n1||200M|6|00:01.500|1
1_5.0|bash|CANCELLED|0:15|2026-11-22T20:42:26|2026-11-22T20:42:26|2026-11-22T20:42:30|4|c1n1|4664K||6|00:01.500|1
1_3|ctrate-t|PENDING|0:0|2026-11-22T20:42:46|Unknown|Unknown|0|None assigned||200M|21|00:01.500|1
1_[6-7,8%2]|ctrate-t|PENDING|0:0|2026-11-22T20:42:26|Unknown|Unknown|0|None assigned||200M|22|00:01.500|1
"""  # noqa: E501


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def of(rows: list[AccountRow], index: int) -> list[AccountRow]:
    return [row for row in rows if row.key == ("1", index)]


def test_queue_rows_are_known_by_array_id_and_index() -> None:
    rows = {row.key: row for row in parse_squeue(SQUEUE)}
    assert sorted(rows) == [("1", 0), ("1", 1), ("1", 4), ("1", 5), ("1", 8)]
    assert rows["1", 8].state == "PENDING"  # its raw id is 1: that is never the array


def test_queue_rows_are_live_or_not() -> None:
    live = {row.key[1] for row in parse_squeue(SQUEUE) if row.live}
    assert live == {4, 8}


def test_a_requeued_element_waits_with_its_restarts_counted() -> None:
    requeued = next(row for row in parse_squeue(SQUEUE) if row.key == ("1", 4))
    assert (requeued.waiting, requeued.restarts, requeued.node) == (True, 1, "")
    assert requeued.submitted == at("2026-11-22T20:42:30")


def test_a_bar_in_the_job_scripts_path_is_no_trouble() -> None:
    last = next(row for row in parse_squeue(SQUEUE) if row.key == ("1", 8))
    assert last.command == "/x/a|b.sh o"
    assert last.started is None


def test_lines_that_are_no_rows_are_passed_over() -> None:
    assert parse_squeue("slurm_load_jobs error: x\n\n1|2\n") == []
    assert parse_sacct("sacct: error\n\n1_0|FAILED\n") == []


def test_the_steps_tell_that_memory_ran_out_where_the_job_says_failed() -> None:
    (row,) = of(parse_sacct(SACCT), 2)
    assert (row.state, row.exit_code, row.out_of_memory) == ("FAILED", "1:0", True)


def test_a_step_is_no_row_and_lends_its_memory_to_its_job() -> None:
    (row,) = of(parse_sacct(SACCT), 0)
    assert (row.state, row.max_rss_bytes, row.elapsed_s) == ("COMPLETED", 11964 * 1024, 3)
    assert (row.requested_bytes, row.cpu_s, row.cpus) == (200 * 2**20, 1.5, 1)
    assert row.out_of_memory is False


def test_who_cancelled_is_not_part_of_the_state() -> None:
    (row,) = of(parse_sacct(SACCT), 5)
    assert (row.state, row.cancelled_by) == ("CANCELLED", 0)


def test_every_run_of_a_requeued_element_is_kept_the_newest_last() -> None:
    assert [row.state for row in of(parse_sacct(SACCT), 3)] == ["NODE_FAIL", "PENDING"]


def test_compressed_ids_are_taken_apart() -> None:
    rows = parse_sacct(SACCT)
    assert [of(rows, index)[0].state for index in (6, 7, 8)] == ["PENDING"] * 3


def test_memory_above_the_request_is_out_of_memory_where_nothing_says_so() -> None:
    text = (
        "7_0|n|FAILED|9:0|2026-11-22T20:42:26|2026-11-22T20:42:26|2026-11-22T20:42:29|3|c||200M|9|00:02.000|1\n"
        "7_0.0|b|CANCELLED by 0|0:9|2026-11-22T20:42:26|2026-11-22T20:42:26|"
        "2026-11-22T20:42:29|3|c|250000K||9|00:02.000|1\n"
    )
    assert parse_sacct(text)[0].out_of_memory is True


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("11964K", 11964 * 1024),
        ("1.50G", 3 * 2**29),
        ("200Mn", 200 * 2**20),
        ("512", 512),
        ("", 0),
        ("?", 0),
    ],
)
def test_memory(text: str, size_bytes: int) -> None:
    assert memory_bytes(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "cpu_s"),
    [("00:01.500", 1.5), ("03:04", 184), ("02:03:04", 7384), ("1-02:03:04", 93784), ("", 0)],
)
def test_cpu_times(text: str, cpu_s: float) -> None:
    assert seconds(text) == cpu_s


@pytest.mark.parametrize(
    ("text", "whole_minutes"),
    [("1-00:00:00", 1440), ("00:05:00", 5), ("UNLIMITED", None), ("NONE", None)],
)
def test_time_limits(text: str, whole_minutes: int | None) -> None:
    assert minutes(text) == whole_minutes

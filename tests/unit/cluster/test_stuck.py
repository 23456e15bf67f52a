"""Which reasons of squeue no waiting resolves, and what mends them."""

from __future__ import annotations

import pytest

from ctrate_convert.cluster.scheduler.query import QueueRow, parse_squeue
from ctrate_convert.cluster.states.stuck import stuck_element

OUT = "/data/shards"


def row(reason: str, state: str = "PENDING", index: int = 0) -> QueueRow:
    return QueueRow(("40", index), "ctrate-x-0001-00", state, reason, "", None, None, 0, "")


@pytest.mark.parametrize(
    ("reason", "command"),
    [
        ("JobHeldUser", "scontrol release 40_0"),
        ("JobHoldMaxRequeue", "scontrol release 40_0"),
        ("launch_failed_requeued_held", "scontrol release 40_0"),
        ("launch failed requeued held", "scontrol release 40_0"),
        ("(launch failed requeued held)", "scontrol release 40_0"),
        ("job_requeued_in_held_state", "scontrol release 40_0"),
        ("PartitionTimeLimit", "--timeout_min"),
        ("QOSMaxWallDurationPerJobLimit", "--timeout_min"),
        ("AssocMaxWallDurationPerJobLimit", "--timeout_min"),
        ("QOSMaxMemoryPerJob", "--mem_gb"),
        ("QOSMaxCpuPerJobLimit", "--cpus_per_task"),
        ("AssocMaxMemPerJob", "--mem_gb"),
        ("AssocMaxCpuPerJobLimit", "--cpus_per_task"),
        ("QOSMinCpuNotSatisfied", "--cpus_per_task"),
        ("Reservation_res_was_deleted", "reservation="),
        ("Reservation res was deleted", "reservation="),
        ("BadConstraints", "--partition"),
        ("InvalidAccount", "--account"),
        ("InvalidQOS", "--qos"),
        ("AssocGrpCPUMinutesLimit", "administrators"),
        ("JobHeldAdmin", "administrators"),
        ("DependencyNeverSatisfied", "dependency="),
    ],
)
def test_no_waiting_resolves(reason: str, command: str) -> None:
    stuck = stuck_element(row(reason), 7, OUT)
    assert stuck is not None
    assert (stuck.job, stuck.task, stuck.reason) == ("40_0", 7, reason)
    assert command in stuck.next_command


@pytest.mark.parametrize(
    "reason",
    [
        "", "Priority", "Resources", "Dependency", "BeginTime", "JobArrayTaskLimit",
        "PartitionDown", "PartitionNodeLimit",
        "QOSMaxJobsPerUserLimit", "QOSMaxCpuPerUserLimit", "AssocMaxJobsLimit", "QOSGrpCpuLimit",
        "AssocGrpCPURunMinutesLimit", "ReqNodeNotAvail", "Licenses", "Cleaning", "None",
        "AReasonOfALaterVersion",
    ],
)  # fmt: skip
def test_waiting_may_help(reason: str) -> None:
    assert stuck_element(row(reason), 7, OUT) is None


def test_what_runs_is_not_stuck() -> None:
    """squeue may keep the reason of the time before the start."""
    assert stuck_element(row("JobHeldUser", "RUNNING"), 7, OUT) is None


def test_a_finaliser_converts_nothing_and_is_not_relaunched() -> None:
    stuck = stuck_element(row("PartitionTimeLimit"), None, OUT)
    assert stuck is not None
    assert stuck.next_command == "scancel 40_0; ctrate-convert merge /data/shards"


@pytest.mark.parametrize(
    "state",
    ["EXPEDITING", "REVOKED", "STOPPED", "SIGNALING", "STAGE_OUT", "?", "", "MADE_UP_IN_2031"],
)
def test_a_row_is_live_unless_its_state_has_certainly_ended(state: str) -> None:
    text = f"1|0|2|ctrate-t|{state}|None|n1|2026-11-22T20:42:26|N/A|0|/x/a.sh o|\n"
    (of_first,) = parse_squeue(text)
    assert of_first.key == ("1", 0)  # index 0 is an index
    assert of_first.live

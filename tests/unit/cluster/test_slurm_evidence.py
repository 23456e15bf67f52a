"""The ladder of evidence, rung by rung: unknown is never taken for done nor for failed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest

from ctrate_convert.cluster.scheduler.profile import ClusterProfile, load_profile
from ctrate_convert.cluster.scheduler.query import AccountRow, QueueRow
from ctrate_convert.cluster.states.evidence import Element, Facts, Verdict, judge
from ctrate_convert.cluster.states.stuck import Stuck
from ctrate_convert.cluster.submissions import ArrayAnswer, Resources
from ctrate_convert.errors import SettingsError
from ctrate_convert.store.attempts import PastAttempt
from ctrate_convert.store.records.attempt import AttemptEnd, AttemptStart

T0 = datetime(2026, 1, 1, 12, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def element(job_id: str | None = "40", *, cancelled: bool = False) -> Element:
    answer = ArrayAnswer(
        job_name="ctrate-x-0001-00", job_id=job_id, found_by="sbatch", time=T0.isoformat()
    )
    resources = Resources(timeout_min=5, mem_mb=100, cpus_per_task=1)
    return Element(
        3, 7, "ctrate-x-0001-00", resources, T0, answer if job_id else None, 1, cancelled=cancelled
    )


def attempt(
    started_s: float,
    outcome: Literal["done", "failed", "interrupted"] | None,
    reason: str = "",
    *,
    job: str = "40",
    restart: int = 0,
    by_hand: bool = False,
    shards_failed: tuple[int, ...] = (),
    noted_s: float | None = None,
) -> PastAttempt:
    scheduler = {
        "kind": "slurm",
        "job_id": "47",
        "array_job_id": job,
        "array_task_id": "7",
        "restart_count": str(restart),
        "node": "n1",
        "submission": "1",
    }
    start = AttemptStart(
        attempt=f"a{started_s}",
        tasks=(3,),
        host="n1",
        pid=1,
        started=after(started_s).isoformat(),
        scheduler={} if by_hand else scheduler,
    )
    end = outcome and AttemptEnd(
        attempt=f"a{started_s}",
        outcome=outcome,
        reason=reason,
        traceback="",
        finished=after(started_s + 5).isoformat(),
        elapsed_s=5,
        shards_done=0,
        shards_failed=shards_failed,
        samples_converted=0,
        samples_failed=0,
        max_rss_bytes=1,
    )
    return PastAttempt(start, None, end or None, None if noted_s is None else after(noted_s))


def in_queue(state: str, restarts: int = 0, reason: str = "") -> QueueRow:
    return QueueRow(("40", 7), "ctrate-x-0001-00", state, reason, "n1", T0, after(1), restarts, "")


def in_accounting(state: str, *, out_of_memory: bool = False, started_s: float = 1) -> AccountRow:
    return AccountRow(
        ("40", 7), "ctrate-x-0001-00", state, "1:0", T0, after(started_s), after(started_s + 9), 9,
        "n1", 5, out_of_memory,
    )  # fmt: skip


def judged(**known: Any) -> Verdict:
    facts: dict[str, Any] = {
        "task": 3,
        "recorded": False,
        "damaged": None,
        "attempts": (),
        "shards": frozenset({3}),
        "element": element(),
        "live": None,
        "ended": None,
        "queue_asked": True,
        "accounts": (),
        "sign_of_life": None,
        "now": after(1000),
    }
    return judge(Facts(**{**facts, **known}))


def state_of(**known: Any) -> tuple[str, str]:
    verdict = judged(**known)
    return verdict.state, verdict.evidence


class TestRecord:
    def test_a_record_outranks_everything(self) -> None:
        assert state_of(
            recorded=True, attempts=(attempt(1, "failed", "x"),), live=in_queue("RUNNING")
        ) == ("done", "record")

    def test_a_damaged_record_is_neither_done_nor_failed(self) -> None:
        assert state_of(damaged="sha256 wrong") == ("unknown", "record")

    def test_completed_without_a_record_is_unknown(self) -> None:
        assert state_of(accounts=(in_accounting("COMPLETED"),)) == ("unknown", "none")
        assert state_of(ended=in_queue("COMPLETED")) == ("unknown", "none")

    def test_an_attempt_that_says_done_without_a_record_is_unknown(self) -> None:
        assert state_of(attempts=(attempt(2, "done"),)) == ("unknown", "attempt")


class TestAttempt:
    def test_its_own_last_word_tells_why_it_failed(self) -> None:
        verdict = judged(attempts=(attempt(2, "failed", "disk full"),))
        assert verdict == Verdict("failed", "attempt", "disk full")

    def test_of_an_older_run_it_does_not_outrank_a_live_job(self) -> None:
        old = attempt(2, "failed", "disk full", restart=0)
        assert state_of(attempts=(old,), live=in_queue("RUNNING", restarts=1)) == (
            "running",
            "squeue",
        )
        assert state_of(attempts=(old,), live=in_queue("PENDING", restarts=1)) == (
            "pending",
            "squeue",
        )

    def test_of_an_older_submission_it_does_not_count(self) -> None:
        old = attempt(-50, "failed", "disk full", job="12")
        assert state_of(attempts=(old,)) == ("unknown", "none")
        assert state_of(attempts=(old,), accounts=(in_accounting("TIMEOUT"),)) == (
            "failed",
            "sacct",
        )

    def test_of_the_run_that_is_just_ending_it_counts(self) -> None:
        now = attempt(2, "failed", "disk full")
        assert state_of(attempts=(now,), live=in_queue("COMPLETING")) == ("failed", "attempt")

    def test_interrupted_and_still_in_the_queue_is_running(self) -> None:
        now = attempt(2, "interrupted", "SIGUSR2")
        assert state_of(attempts=(now,), live=in_queue("RUNNING")) == ("running", "squeue")

    def test_interrupted_and_gone_is_failed_only_if_the_queue_could_be_asked(self) -> None:
        now = attempt(2, "interrupted", "SIGTERM")
        assert state_of(attempts=(now,)) == ("failed", "attempt")
        assert state_of(attempts=(now,), queue_asked=False) == ("unknown", "none")

    def test_warned_before_one_shard_was_done_wants_more_time(self) -> None:
        verdict = judged(
            attempts=(attempt(2, "interrupted", "SIGUSR2"),), accounts=(in_accounting("FAILED"),)
        )
        assert verdict.reason.startswith("TIMEOUT")
        assert verdict.cause == "time"

    def test_a_killed_worker_wants_more_memory_where_a_step_ran_out_of_it(self) -> None:
        killed = attempt(2, "failed", "the worker of shard 3 died: killed by SIGKILL")
        memory = judged(attempts=(killed,), accounts=(in_accounting("FAILED", out_of_memory=True),))
        assert memory.reason.startswith("OUT_OF_MEMORY")
        assert memory.cause == "memory"
        assert judged(attempts=(killed,), accounts=(in_accounting("FAILED"),)).cause == "other"
        assert judged(attempts=(killed,)).cause == "memory"  # accounting cannot tell
        not_yet = replace(in_accounting("RUNNING"), ended=None)
        assert judged(attempts=(killed,), accounts=(not_yet,)).cause == "memory"

    def test_a_fresh_note_is_a_sign_of_life_where_the_queue_cannot_be_asked(self) -> None:
        living = attempt(900, None, noted_s=990)
        assert state_of(attempts=(living,), queue_asked=False) == ("running", "attempt")
        silent = attempt(900, None, noted_s=902)
        assert state_of(attempts=(silent,), queue_asked=False) == ("unknown", "none")


class TestScheduler:
    @pytest.mark.parametrize("state", ["RUNNING", "COMPLETING", "SUSPENDED", "CONFIGURING"])
    def test_live_is_running(self, state: str) -> None:
        assert state_of(live=in_queue(state)) == ("running", "squeue")

    @pytest.mark.parametrize("state", ["PENDING", "REQUEUED", "REQUEUE_HOLD"])
    def test_waiting_is_pending(self, state: str) -> None:
        assert state_of(live=in_queue(state)) == ("pending", "squeue")

    @pytest.mark.parametrize(
        ("state", "cause"),
        [("TIMEOUT", "time"), ("NODE_FAIL", "node"), ("PREEMPTED", "other"),
         ("CANCELLED", "other"), ("OUT_OF_MEMORY", "memory")],
    )  # fmt: skip
    def test_a_terminal_state_is_failed_for_that_reason(self, state: str, cause: str) -> None:
        for known in ({"accounts": (in_accounting(state),)}, {"ended": in_queue(state)}):
            verdict = judged(**known)
            assert (verdict.state, verdict.cause) == ("failed", cause)
            assert verdict.reason.startswith(state)

    @pytest.mark.parametrize("state", ["EXPEDITING", "MADE_UP_IN_2031", "?"])
    def test_a_state_not_known_to_have_ended_outranks_accounting(self, state: str) -> None:
        """With --requeue=expedite a job restarts at once after its node failed."""
        verdict = judged(live=in_queue(state, 1), accounts=(in_accounting("NODE_FAIL"),))
        assert verdict.state in ("pending", "running")
        assert verdict.evidence == "squeue"

    def test_live_but_not_running_is_named(self) -> None:
        for state in ("SUSPENDED", "COMPLETING", "STOPPED"):
            assert judged(live=in_queue(state)).reason == state

    def test_revoked_is_unknown(self) -> None:
        """A sibling of it runs on another cluster."""
        for known in ({"live": in_queue("REVOKED")}, {"accounts": (in_accounting("REVOKED"),)}):
            verdict = judged(**known)
            assert verdict.state == "unknown"
            assert "federation" in verdict.reason

    def test_who_cancelled_it_decides(self) -> None:
        by_me = replace(in_accounting("CANCELLED"), cancelled_by=1000)
        assert judged(accounts=(by_me,), user_id=1000).state == "cancelled"
        assert judged(accounts=(by_me,), user_id=0).state == "failed"
        mine = element(cancelled=True)
        assert judged(element=mine, accounts=(by_me,), user_id=0).state == "cancelled"
        failed = attempt(2, "failed", "disk full")
        assert judged(element=mine, attempts=(failed,), accounts=(by_me,)).state == "failed"
        late = in_accounting("TIMEOUT")
        assert judged(element=mine, accounts=(late,)).state == "failed"

    def test_stuck_is_a_state(self) -> None:
        stuck = Stuck("40_7", 3, "JobHeldUser", "scontrol release 40_7")
        held = in_queue("PENDING", reason="JobHeldUser")
        assert judged(live=held, stuck=stuck) == Verdict("stuck", "squeue", "JobHeldUser")

    def test_a_requeue_tells_what_went_before(self) -> None:
        verdict = judged(live=in_queue("PENDING", 1), accounts=(in_accounting("NODE_FAIL"),))
        assert verdict.reason == "requeued after NODE_FAIL"

    def test_nothing_known_is_unknown(self) -> None:
        assert state_of() == ("unknown", "none")
        assert state_of(queue_asked=False) == ("unknown", "none")

    def test_accounting_that_still_says_running_is_not_believed(self) -> None:
        assert state_of(accounts=(in_accounting("RUNNING"),)) == ("unknown", "none")

    def test_a_cancelled_element_that_is_gone_is_cancelled_even_without_accounting(self) -> None:
        assert state_of(element=element(cancelled=True)) == ("cancelled", "cancel")
        assert state_of(element=element(cancelled=True), queue_asked=False) == ("unknown", "none")

    def test_an_intent_without_an_answer_is_unknown(self) -> None:
        assert state_of(element=element(None)) == ("unknown", "intent")


class TestByHand:
    def test_never_submitted_is_pending(self) -> None:
        assert state_of(element=None) == ("pending", "plan")

    def test_interrupted_is_pending(self) -> None:
        stopped = attempt(2, "interrupted", "SIGINT", by_hand=True)
        assert state_of(element=None, attempts=(stopped,)) == ("pending", "attempt")

    def test_failed_is_failed_for_its_own_shards_only(self) -> None:
        mine = attempt(2, "failed", "disk full", by_hand=True, shards_failed=(3,))
        other = attempt(2, "failed", "disk full", by_hand=True, shards_failed=(9,))
        assert state_of(element=None, attempts=(mine,)) == ("failed", "attempt")
        assert state_of(element=None, attempts=(other,)) == ("pending", "attempt")

    def test_without_a_last_word_its_process_decides(self) -> None:
        silent = attempt(2, None, by_hand=True)
        assert state_of(element=None, attempts=(silent,), sign_of_life=False) == (
            "failed",
            "attempt",
        )
        assert state_of(element=None, attempts=(silent,)) == ("unknown", "attempt")

    def test_newer_than_the_submission_it_counts(self) -> None:
        newer = attempt(60, "failed", "disk full", by_hand=True, shards_failed=(3,))
        assert state_of(attempts=(newer,), accounts=(in_accounting("TIMEOUT"),)) == (
            "failed",
            "attempt",
        )


class TestProfile:
    def test_an_unknown_name_is_refused_with_the_nearest_one(self, tmp_path: Any) -> None:
        path = tmp_path / "p.toml"
        path.write_text('partitoin = "gpu"\n')
        with pytest.raises(SettingsError, match="'partition', perhaps"):
            load_profile(path)

    def test_what_is_given_wins_over_the_file(self, tmp_path: Any) -> None:
        path = tmp_path / "p.toml"
        path.write_text('partition = "gpu"\nmem-gb = 2\nsetup = ["a", "b"]\n')
        profile = load_profile(path).overridden({"partition": "cpu", "qos": None, "setup": ()})
        assert profile == ClusterProfile(partition="cpu", mem_gb=2.0, setup=("a", "b"))

    def test_the_least_free_space_is_off_unless_it_is_set(self, tmp_path: Any) -> None:
        path = tmp_path / "p.toml"
        path.write_text("min_free_gb = 50\n")
        assert load_profile(path).min_free_gb == 50
        assert load_profile(path).overridden({"min_free_gb": 0.0}).min_free_gb == 0
        assert load_profile(None).min_free_gb == 0

    def test_the_examples_are_valid(self) -> None:
        from pathlib import Path

        folder = Path(__file__).parents[3] / "config" / "clusters"
        assert {path.stem for path in folder.glob("*.toml")} >= {"example", "plain"}
        for path in folder.glob("*.toml"):
            load_profile(path)

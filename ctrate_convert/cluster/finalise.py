"""The finaliser job: after all arrays of a submission have ended, merge, verify and report."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ctrate_convert.checking.verify import verify
from ctrate_convert.cluster.scheduler.client import SlurmClient
from ctrate_convert.cluster.states.cluster_view import Looker, Task
from ctrate_convert.cluster.submissions import (
    FinalReport,
    SubmissionFiles,
    load_submissions,
    now_text,
)
from ctrate_convert.cluster.until_done import go_on
from ctrate_convert.errors import SettingsError
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.merger import merge
from ctrate_convert.store.plans import require_plans

_SAMPLES = 100


def work(out: str, submission: int) -> dict[str, Any]:
    """Finalise the submission, go on if it was asked to, and write its ``report.json``."""
    dataset = Dataset(Path(out))
    files, report = finalise(dataset, submission)
    if files.submission.max_attempts:
        gone = go_on(dataset, files.submission.max_attempts)
        report = report.model_copy(
            update={"relaunched": gone.relaunched, "for_a_person": gone.for_a_person}
        )
    files.write_report(report)
    return {"samples": report.samples, "damage": len(report.damage)}


def finalise(dataset: Dataset, submission: int) -> tuple[SubmissionFiles, FinalReport]:
    """Merge, verify a hundred samples byte by byte, and return a report of what was found.

    Raises:
        SettingsError: there is no such submission.
    """
    mine = [f for f in load_submissions(dataset) if f.submission.number == submission]
    if not mine:
        raise SettingsError(f"no submission {submission:04d}", where=dataset.submissions)
    merge(dataset, require_plans(dataset))
    view = Looker(dataset, SlurmClient()).look()
    # One worker, since the finaliser asks Slurm for one core.
    verified = verify(
        dataset, num_samples=_SAMPLES, check_precision=False, full=False, num_workers=1
    )
    # Slurm may have refused some of the arrays: their tasks are not this submission's.
    accepted = {
        task
        for place, array in enumerate(mine[0].submission.arrays)
        if (answer := mine[0].answer(place)) is None or answer.job_id is not None
        for task in array.tasks
    }
    tasks = [task for task in view.tasks if task.number in accepted]
    report = FinalReport(
        time=now_text(),
        samples=view.samples,
        tasks=dict(Counter(task.verdict.state for task in tasks)),
        not_done=tuple(_words(task) for task in tasks if task.verdict.state != "done"),
        shards_checked=verified.shards,
        samples_checked=verified.samples_checked,
        damage=tuple(f"{d.shard} {d.key or ''}: {d.what}" for d in verified.damage),
        unavailable=tuple(map(str, view.unavailable)),
    )
    return mine[0], report


def _words(task: Task) -> str:
    verdict = task.verdict
    return f"task {task.number}: " + ", ".join(filter(None, (verdict.state, verdict.reason)))

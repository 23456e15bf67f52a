"""The command ``ctrate-convert convert``: the original's one command, with all its options."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from ctrate_convert.cli import ask as consent
from ctrate_convert.cli import options, show
from ctrate_convert.cli.plan import print_plan
from ctrate_convert.cli.plan_progress import PlanProgress
from ctrate_convert.cli.run import convert_pending, proposal_of
from ctrate_convert.cli.sections import PlanCommand
from ctrate_convert.deleting.proposal import Candidate, Proposal, propose
from ctrate_convert.deleting.trusted import require_lasting
from ctrate_convert.planning.make import PlanReport, make_plan
from ctrate_convert.running.delete import require_deletable
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.consent import Consent
from ctrate_convert.store.records.plan import PlanSettings


@click.command("convert", cls=PlanCommand)
@options.plan_options
@options.files_from_option
@options.num_workers_option
@options.min_free_option
@options.yes_option
@options.json_option
def command(
    num_workers: int,
    min_free_gb: float,
    yes: bool,
    as_json: bool,
    files_from: Path | None,
    **values: Any,
) -> int:
    """Plan, convert and, with --delete_source_files, delete along the way, in one command.

    A source is deleted only after it was read again and found equal to what its shard gives back.
    Before the first deletion the command asks, unless --yes is given.

    \b
    Example:
      ctrate-convert convert --data_folder /data/npz --reports_file train_reports.csv \\
        --meta_file train_metadata.csv --labels_file train_predicted_labels.csv \\
        --output_dir /data/shards --samples_per_shard 100 --num_workers 16
    """
    dataset, settings = options.plan_settings(values)
    deleting = settings.delete_source_files
    if deleting:
        consent.refuse_without_terminal("convert", yes=yes)
        # Refused here, before the plan converts volumes for its probe.
        require_lasting(dataset.out)
    asked = _Asked(dataset, settings, yes=yes, num_workers=num_workers, as_json=as_json)
    with PlanProgress() as progress:
        asked.before = progress.close
        report = make_plan(
            dataset,
            settings,
            progress,
            on_probe=progress.probed,
            approve=asked.approve,
            spread=options.spread_over_cores,
            files_from=files_from,
        )
    if report.plan is None:
        # Nothing new was planned, so `approve` was not called: the earlier plans remain.
        asked.show(report)
        asked.ask(asked.earlier() if deleting else None)
    given = asked.consent()
    return convert_pending(
        dataset, num_workers=num_workers, min_free_gb=min_free_gb, as_json=as_json, consent=given
    )


class _Asked:
    """The question of `convert`: asked with the facts known, before the plan is published."""

    def __init__(
        self,
        dataset: Dataset,
        settings: PlanSettings,
        *,
        yes: bool,
        num_workers: int,
        as_json: bool,
    ) -> None:
        self._dataset = dataset
        self._settings = settings
        self._yes = yes
        self._num_workers = num_workers
        self._as_json = as_json
        self.before: Callable[[], None] = lambda: None
        self.proposal: Proposal | None = None
        self.allowed: str | None = None

    def approve(self, report: PlanReport, dtypes: Sequence[str]) -> None:
        """Show what is going to be published, and ask; raise to publish nothing."""
        self.before()
        self.show(report)
        if self._settings.delete_source_files and report.plan is not None:
            self.ask(_with_draft(report, dtypes, self._settings, self.earlier()))

    def earlier(self) -> Proposal | None:
        """Return what the plans that are published propose, with this command's trash."""
        settings = self._settings
        return proposal_of(self._dataset, settings.discard_members, trash=settings.trash)

    def show(self, report: PlanReport) -> None:
        """Print what planning found."""
        if self._as_json:
            return
        deleting = self._settings.delete_source_files
        print_plan(self._dataset, report, deleting=deleting, num_workers=self._num_workers)
        show.line()

    def ask(self, proposal: Proposal | None) -> None:
        """Ask, unless there is nothing to be deleted."""
        self.proposal = proposal
        if proposal is not None:
            require_deletable(self._dataset, proposal)
            self.allowed = consent.answer(proposal, "convert", yes=self._yes)

    def consent(self) -> Consent | None:
        """Record what was allowed, if anything was."""
        if self.proposal is None or self.allowed is None:
            return None
        return self.proposal.accept(self._dataset, self.allowed)


def _with_draft(
    report: PlanReport,
    dtypes: Sequence[str],
    settings: PlanSettings,
    earlier: Proposal | None,
) -> Proposal | None:
    """Return the proposal for a plan that is not published yet, and for those before it."""
    plan = report.plan
    if plan is None:
        return earlier
    found = propose(
        (Candidate(plan, 0, 0, size_bytes=0, dtype=dtype) for dtype in dtypes),
        discard_members=settings.discard_members,
        trash=settings.trash or "",
    )
    if found is None:
        return earlier
    drafted = dataclasses.replace(
        found,
        shards=tuple(shard.index for shard in plan.shards),
        size_bytes=plan.estimate.source_bytes,
    )
    return drafted.after(earlier)

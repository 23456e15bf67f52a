"""What `verify`, `audit` and `delete` share where jobs do their work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctrate_convert.checking.check_files import CheckFiles
from ctrate_convert.cli import options, show
from ctrate_convert.cli.ask import ask
from ctrate_convert.cli.cluster import code_of, print_submitted
from ctrate_convert.cluster.relaunch import latest_profile
from ctrate_convert.cluster.scheduler.profile import ClusterProfile, load_profile
from ctrate_convert.cluster.submit_other import newest_check, submit_check, submit_deletion
from ctrate_convert.deleting.proposal import Proposal
from ctrate_convert.errors import ExitCode, SettingsError
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Planned
from ctrate_convert.store.merger import merge
from ctrate_convert.store.plans import require_plans
from ctrate_convert.store.records.check import CheckCommand, CheckOptions


@dataclass(frozen=True)
class Jobs:
    """What the command line says of the jobs: whether, and with which resources."""

    submit: bool
    profile: Path | None
    timeout_min: int | None
    mem_gb: float | None

    def refuse_if_alone(self, *not_with_submit: str) -> None:
        """Raise if options were given that only go with ``--submit``, or do not go with it.

        Raises:
            SettingsError: they were.
        """
        mine = options.given("profile", "timeout_min", "mem_gb")
        if mine and not self.submit:
            raise SettingsError(f"{mine[0]} goes with --submit")
        others = options.given(*not_with_submit, "num_workers")
        if others and self.submit:
            raise SettingsError(f"--submit and {others[0]} do not go together")

    def settings(self, dataset: Dataset) -> ClusterProfile:
        """Return the profile, or that of the newest conversion, with the given resources."""
        profile = load_profile(self.profile) if self.profile else latest_profile(dataset)
        return profile.overridden({"timeout_min": self.timeout_min, "mem_gb": self.mem_gb})


def refuse_with_result(*names: str) -> None:
    """Raise if an option was given that ``--result`` would ignore.

    Raises:
        SettingsError: it was.
    """
    others = options.given(*names, "submit", "profile", "timeout_min", "mem_gb", "num_workers")
    if others:
        raise SettingsError(f"--result and {others[0]} do not go together")


def submit_check_of(
    dataset: Dataset,
    jobs: Jobs,
    command: CheckCommand,
    wanted: CheckOptions,
    *,
    as_json: bool,
    any_seed: bool = False,
) -> int:
    """Submit a verification or an audit, and print what was submitted."""
    done = submit_check(dataset, jobs.settings(dataset), command, wanted, any_seed=any_seed)
    print_submitted(dataset, done, as_json=as_json)
    if not as_json:
        show.line(f"Once its jobs are over: ctrate-convert {command} {dataset.out} --result")
    return code_of(done)


def newest(dataset: Dataset, command: CheckCommand) -> CheckFiles:
    """Return the newest check of the command.

    Raises:
        SettingsError: there is no plan, or none was ever submitted.
    """
    require_plans(dataset)
    files = newest_check(dataset, command)
    if files is None:
        raise SettingsError(
            f"no `{command}` was submitted for this dataset",
            where=dataset.out,
            next_command=f"ctrate-convert {command} {dataset.out} --submit",
        )
    return files


def delete_by_jobs(
    dataset: Dataset,
    jobs: Jobs,
    proposal: Proposal,
    work: Sequence[Planned],
    *,
    yes: bool,
    as_json: bool,
    facts: Mapping[str, object],
) -> int:
    """Ask, and submit the deletion of the sources of ``work``; print what was submitted.

    What cannot be submitted is refused before anybody is asked. ``facts`` are what --json prints
    where nothing is deleted.
    """
    settings = jobs.settings(dataset)
    tasks = frozenset(one.shard.task for one in work)
    submit_deletion(dataset, settings, tasks, "", dry_run=True)
    consent = ask(dataset, proposal, "delete", yes=yes)
    if consent is None:
        if as_json:
            show.as_json(facts)
        return ExitCode.DONE
    merge(dataset, require_plans(dataset))
    done = submit_deletion(dataset, settings, tasks, consent.name)
    print_submitted(dataset, done, as_json=as_json)
    if not as_json:
        show.line(f"What is left once they are over: ctrate-convert delete {dataset.out} --dry_run")
    return code_of(done)

"""What `verify`, `audit` and `delete` share where jobs do their work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ctrate_convert.checking.check_files import (
    CheckCommand,
    CheckFiles,
    CheckOptions,
    newest_check,
)
from ctrate_convert.cli import show
from ctrate_convert.cli.ask import ask
from ctrate_convert.cli.cluster import code_of, print_submitted
from ctrate_convert.cluster.relaunch import latest_profile
from ctrate_convert.cluster.scheduler.profile import ClusterProfile, load_profile
from ctrate_convert.cluster.submit_other import submit_check, submit_deletion
from ctrate_convert.deleting.proposal import Proposal
from ctrate_convert.errors import ExitCode, SettingsError
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Planned
from ctrate_convert.store.merger import merge
from ctrate_convert.store.plans import require_plans


def require_alone(name: str, given: bool, *, submit: bool, result: bool) -> None:
    """Raise if two options were given that do not go together.

    Raises:
        SettingsError: they were.
    """
    named = [*([name] if given else []), *(["--submit"] * submit), *(["--result"] * result)]
    if len(named) > 1:
        raise SettingsError(f"{' and '.join(named)} do not go together")


def submit_check_of(
    dataset: Dataset,
    profile: Path | None,
    command: CheckCommand,
    wanted: CheckOptions,
    *,
    as_json: bool,
    any_seed: bool = False,
) -> int:
    """Submit a verification or an audit, and print what was submitted."""
    done = submit_check(dataset, _profile(dataset, profile), command, wanted, any_seed=any_seed)
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
    profile: Path | None,
    proposal: Proposal,
    work: Sequence[Planned],
    *,
    yes: bool,
    as_json: bool,
) -> int:
    """Ask, and submit the deletion of the sources of ``work``; print what was submitted.

    What cannot be submitted is refused before anybody is asked.
    """
    settings = _profile(dataset, profile)
    tasks = frozenset(one.shard.task for one in work)
    submit_deletion(dataset, settings, tasks, "", dry_run=True)
    consent = ask(dataset, proposal, "delete", yes=yes)
    if consent is None:
        return ExitCode.DONE
    merge(dataset, require_plans(dataset))
    done = submit_deletion(dataset, settings, tasks, consent.name)
    print_submitted(dataset, done, as_json=as_json)
    if not as_json:
        show.line(f"What is left once they are over: ctrate-convert delete {dataset.out} --dry_run")
    return code_of(done)


def _profile(dataset: Dataset, path: Path | None) -> ClusterProfile:
    return load_profile(path) if path else latest_profile(dataset)

"""The command ``ctrate-convert delete``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from ctrate_convert.checking.damage import find_damage
from ctrate_convert.cli import options, show
from ctrate_convert.cli.ask import ask, refuse_without_terminal
from ctrate_convert.cli.damage import print_damage, with_damage
from ctrate_convert.cli.deleted import print_deleted, print_not_deleted
from ctrate_convert.cli.folding import folded, print_shard_errors
from ctrate_convert.cli.language import translated, word
from ctrate_convert.cli.on_cluster import Jobs, delete_by_jobs
from ctrate_convert.cli.progress import RunProgress
from ctrate_convert.cli.stopping import print_stopped, stoppable
from ctrate_convert.deleting.copies import shards_without_copy
from ctrate_convert.deleting.proposal import propose
from ctrate_convert.deleting.source_states import (
    Source,
    candidates,
    refuse_views,
    survey,
    totals,
)
from ctrate_convert.errors import ExitCode, SettingsError
from ctrate_convert.running.delete import (
    deletable_work,
    delete_sources_of,
    require_deletable,
    require_places,
    with_interrupted,
)
from ctrate_convert.running.result import RunResult
from ctrate_convert.running.run import Crew
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger
from ctrate_convert.store.plans import require_plans
from ctrate_convert.store.records.damage import Damage

_MEANING = {
    "deletable": "converted; may go if it equals what its shard holds",
    "deleted": "deleted after it was compared with its shard",
    "trashed": "moved to the trash after that; `restore` brings it back",
    "kept": "converted, but something speaks against deleting it",
    "failed": "could not be converted",
    "pending": "not converted yet",
    "excluded": "not part of the plan",
    "gone": "missing, and not by this program",
}


@click.command("delete")
@options.out_argument
@click.option("--dry_run", is_flag=True, help="Show only.")
@options.yes_option
@options.trash_option
@options.discard_members_option
@click.option(
    "--copies",
    multiple=True,
    callback=options.split_names,
    metavar="DIR,…",
    help="Delete only what these folders hold too: each shard there, with its SHA-256, read now.",
)
@options.on_the_cluster
@options.num_workers_option
@options.json_option
def command(
    out: Path,
    dry_run: bool,
    yes: bool,
    trash: str | None,
    discard_members: tuple[str, ...],
    copies: tuple[str, ...],
    submit: bool,
    profile: Path | None,
    timeout_min: int | None,
    mem_gb: float | None,
    num_workers: int,
    as_json: bool,
) -> int:
    """Show which sources could go and why the others stay; ask, then delete them.

    Every shard is read again from storage, and every source is read again and compared with it;
    only what is equal is deleted. Where a converted sample's source is kept, the exit code is 4.
    With --submit, jobs do that under the consent that is given here; the same command goes on with
    what they left.

    \b
    Examples:
      ctrate-convert delete /data/shards --dry_run
      ctrate-convert delete /data/shards
      ctrate-convert delete /data/shards --yes --trash /data/trash
      ctrate-convert delete /data/shards --copies /backup/shards
      ctrate-convert delete /data/shards --submit
    """
    jobs = Jobs(submit, profile, timeout_min, mem_gb)
    jobs.refuse_if_alone("dry_run")
    if dry_run and yes:
        raise SettingsError("--dry_run and --yes do not go together")
    dataset = Dataset(out)
    plans = require_plans(dataset)
    refuse_views(dataset, plans)
    sources = list(survey(dataset, plans))
    work = deletable_work(plans, sources)
    trash = str(options.trash_folder(trash) or "")
    copies = tuple(str(Path(folder).expanduser().resolve()) for folder in copies)
    if dry_run or not work:
        if dry_run:
            require_places(dataset, plans, trash, copies)
        damage = find_damage(Ledger(dataset, plans))
        kept = 0 if dry_run else sum(source.state == "kept" for source in sources)
        lacking = shards_without_copy(dataset, (shard.name for _, shard in work), copies)
        _show(dataset, sources, damage, lacking, kept=kept, as_json=as_json)
        return with_damage(ExitCode.REFUSED if kept else ExitCode.DONE, damage)
    proposal = propose(
        candidates(sources, plans, pending=False),
        discard_members=discard_members,
        trash=trash,
        copies=copies,
    )
    refuse_without_terminal("delete", yes=yes)
    whole = with_interrupted(proposal, work)
    require_deletable(dataset, whole)
    if not (as_json or yes):
        print_sources(sources)
    if submit:
        facts = _facts(sources, None)
        return delete_by_jobs(dataset, jobs, whole, work, yes=yes, as_json=as_json, facts=facts)
    consent = ask(dataset, whole, "delete", yes=yes)
    if consent is None:
        if as_json:
            show.as_json(_facts(sources, None))
        return ExitCode.DONE
    with RunProgress("delete") as progress, stoppable() as stop:
        crew = Crew(num_workers, stop, on_change=progress)
        result = delete_sources_of(dataset, work, consent, crew)
    plans = require_plans(dataset)
    after = list(survey(dataset, plans))
    damage = find_damage(Ledger(dataset, plans))
    if as_json:
        show.as_json({**_facts(after, result), "damage": damage})
    else:
        _print_result(result, after)
        print_sources(after)
        print_damage(damage)
    left = any(source.state in ("deletable", "kept") for source in after)
    refused = left and result.exit_code in (ExitCode.DONE, ExitCode.SAMPLES_FAILED)
    return with_damage(ExitCode.REFUSED if refused else result.exit_code, damage)


def _show(
    dataset: Dataset,
    sources: Sequence[Source],
    damage: Sequence[Damage],
    lacking: Mapping[str, str],
    *,
    kept: int,
    as_json: bool,
) -> None:
    if as_json:
        show.as_json({**_facts(sources, None), "without_copy": lacking, "damage": damage})
        return
    print_not_deleted(kept)
    print_sources(sources)
    show.some(folded("no second copy", lacking.items(), "shard"))
    print_damage(damage)
    if all(source.state != "deletable" for source in sources):
        show.say("Nothing to delete.")
    elif options.given("copies"):
        show.say("The copies were not read: a deletion reads each one before its sources go.")
        show.say("Nothing was deleted. Next: the same command without --dry_run")
    elif options.given("trash", "discard_members"):
        show.say("Nothing was deleted. Next: the same command without --dry_run")
    else:
        show.say(f"Nothing was deleted. Next: ctrate-convert delete {dataset.out}")


def _facts(sources: Sequence[Source], result: RunResult | None) -> dict[str, object]:
    return {
        "totals": totals(sources),
        "deleted_files": result.deletion.deleted_files if result else 0,
        "freed_bytes": result.deletion.freed_bytes if result else 0,
        "trashed_files": result.deletion.trashed_files if result else 0,
        "trashed_bytes": result.deletion.trashed_bytes if result else 0,
        "kept_by_gate": result.deletion.kept if result else [],
        "sources": [source for source in sources if source.state != "deleted"],
    }


def _print_result(result: RunResult, after: Sequence[Source]) -> None:
    print_shard_errors([(index, one.error) for index, one in result.failed_shards.items()])
    print_deleted(result.deletion)
    print_not_deleted(sum(source.state in ("deletable", "kept") for source in after))
    if result.stopped_by:
        print_stopped(result)
    # `print_sources` names these with their reasons anyway.
    told_below = {source.key for source in after if source.state == "kept"}
    kept = [entry for entry in result.deletion.kept if entry.key not in told_below]
    show.some(folded("kept", ((one.source, one.reason) for one in kept), "file", " — "))


def print_sources(sources: Sequence[Source]) -> None:
    """Print files and bytes by state, and then every source that stays for a reason.

    Those with the same reason share a line.
    """
    rows = [
        (word(state), f"{sums.files:,}", show.size(sums.size_bytes), translated(_MEANING[state]))
        for state, sums in totals(sources).items()
    ]
    show.table(("sources", ">files", ">size", "meaning"), rows)
    staying = [s for s in sources if s.state in ("kept", "failed", "excluded", "gone")]
    show.some(
        line
        for state in dict.fromkeys(one.state for one in staying)
        for line in folded(
            state, ((s.source, s.reason) for s in staying if s.state == state), "file", " — "
        )
    )
    again = [(source.source, source.reason) for source in sources if source.stayed]
    show.some(folded("deletable, but it stayed", again, "file", " — "))

"""Move sources back from a trash to where they were."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ctrate_convert.deleting.aside import put_back
from ctrate_convert.deleting.consents import load_consents
from ctrate_convert.deleting.trash import (
    Identity,
    identity_at,
    is_the_file,
    last_lines,
    lies_in_trash,
    open_in_trash,
    place_in_trash,
    trash_of,
)
from ctrate_convert.errors import ExitCode, SettingsError, environment_problem
from ctrate_convert.store.durable import (
    append_lines,
    fsync_open_directory,
    move_if_free,
    open_beneath,
)
from ctrate_convert.store.fresh import fresh_status
from ctrate_convert.store.journals import journal_line, open_intents, read_journal
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import load_record, planned_shards
from ctrate_convert.store.locks import locked
from ctrate_convert.store.plans import load_samples, require_plans
from ctrate_convert.store.records.journal import JournalLine
from ctrate_convert.store.records.plan import Plan, PlannedShard
from ctrate_convert.store.records.record import SourceFingerprint

_LOCK_PATIENCE_S = 60.0


@dataclass
class RestoreReport:
    """The sources that came back, by path, and those that did not, with the reason.

    ``put_back`` are sources that a killed command left under a hidden name in their folder.
    """

    restored: list[str] = field(default_factory=list)
    restored_bytes: int = 0
    put_back: list[str] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)

    @property
    def exit_code(self) -> ExitCode:
        """REFUSED (4) if a source stayed in the trash, else DONE."""
        return ExitCode.REFUSED if self.left else ExitCode.DONE


def restore(dataset: Dataset, keys: Collection[str] = ()) -> RestoreReport:
    """Move every source back whose newest journal line says ``trashed``; with ``keys`` only those.

    `restore` overwrites nothing and follows no link. Only the very file that was moved comes back,
    identified by the shard's record, or by the journal if a consent names the trash. After a kill,
    the same call goes on. A restored source is kept from then on, because the journal says so. A
    source that a killed command left aside gets its name back, too.

    Raises:
        SettingsError: there is no plan, or one of ``keys`` is not in a trash.
        DamageError: a plan or a record was changed.
        EnvironmentProblem: a journal cannot be written.
    """
    report = RestoreReport()
    found: set[str] = set()
    for index, (plan, shard) in planned_shards(require_plans(dataset)).items():
        found |= _put_back_of(dataset, plan, index, keys, report)
        lines = [line for line in _candidates(dataset, index) if not keys or line.key in keys]
        if lines:
            found |= _restore_shard(dataset, plan, shard, lines, report)
    missing = sorted(set(keys) - found)
    if missing:
        raise SettingsError(
            "not in a trash, as far as the journal tells",
            seen=", ".join(missing[:5]),
            next_command=f"ctrate-convert delete {dataset.out}",
        )
    return report


def _put_back_of(
    dataset: Dataset, plan: Plan, index: int, keys: Collection[str], report: RestoreReport
) -> set[str]:
    """Give sources of one shard their names back that a killed command left aside."""
    folder = Path(plan.settings.data_folder)
    found = set()
    for line in open_intents(read_journal(dataset, index)).values():
        if (not keys or line.key in keys) and put_back(folder, line.source):
            report.put_back.append(line.source)
            found.add(line.key)
    return found


def _candidates(dataset: Dataset, index: int) -> list[JournalLine]:
    """Return the lines of sources that were moved, or that a killed process may have moved."""
    journal = read_journal(dataset, index)
    moved = {key: line for key, line in last_lines(journal).items() if line.event == "trashed"}
    meant = {key: line for key, line in open_intents(journal).items() if line.trash}
    # Where both name a key, its open intent is the newer line.
    return list({**moved, **meant}.values())


def _restore_shard(
    dataset: Dataset,
    plan: Plan,
    shard: PlannedShard,
    lines: list[JournalLine],
    report: RestoreReport,
) -> set[str]:
    """Move the sources of one shard back; return the keys whose sources were in a trash."""
    index = shard.index
    sources = _sources(dataset, plan, shard)
    trashes = {consent.trash for consent in load_consents(dataset)}
    # An intent alone does not say that the file ever came to the trash.
    lines = [line for line in lines if line.event == "trashed" or _was_moved(line, index, sources)]
    done = []
    with locked(dataset.lock(f"shard-{index:06d}"), timeout_s=_LOCK_PATIENCE_S):
        try:
            for line in lines:
                doubt = _move_back(plan, index, line, sources.get(line.key), trashes)
                if doubt:
                    report.left.append((line.source, doubt))
                    continue
                report.restored.append(line.source)
                report.restored_bytes += line.size_bytes
                done.append(
                    journal_line(
                        "restored",
                        line.key,
                        line.source,
                        line.size_bytes,
                        "restore",
                        trash=line.trash,
                    )
                )
        finally:
            # Sources restored before a failure are noted as well.
            try:
                if done:
                    append_lines(dataset.journal(index), done)
            except OSError as error:
                raise environment_problem(error, "noting restored sources") from error
    return {line.key for line in lines}


def _sources(dataset: Dataset, plan: Plan, shard: PlannedShard) -> dict[str, SourceFingerprint]:
    """Return the sources as they were read, of the samples whose source is the planned one."""
    planned = {sample.key: sample.source for sample in load_samples(dataset, plan, shard)}
    return {
        sample.key: sample.source
        for sample in load_record(dataset, plan, shard.index).converted
        if planned.get(sample.key) == sample.source.source
    }


def _was_moved(line: JournalLine, index: int, sources: Mapping[str, SourceFingerprint]) -> bool:
    source = sources.get(line.key)
    return source is not None and lies_in_trash(line, index, source)


def _move_back(
    plan: Plan,
    index: int,
    line: JournalLine,
    source: SourceFingerprint | None,
    trashes: Collection[str],
) -> str | None:
    """Move one file back; return why not if it stays. The journal alone is not trusted."""
    trash = trash_of(line, index)
    if source is None or source.source != line.source or trash is None:
        return "the journal and the shard's record disagree on it"
    folder, moved = Path(plan.settings.data_folder), identity_at(line, source)
    # A forged journal could call any file of this user the moved one. The record vouches for the
    # file that was converted, a consent for the folder that the gate moved it to.
    if moved != Identity.recorded(source) and str(trash) not in trashes:
        return f"no consent names its trash, and it is not the file that was converted: {trash}"
    try:
        if _is_home(folder, source.source, moved):
            return None  # a killed call has moved it already
        with open_in_trash(trash, place_in_trash(index, source.source)) as (away, its_name):
            if not is_the_file(fresh_status(its_name, away), moved):
                return f"not the file that was moved there: {line.trash}"
            with open_beneath(folder, source.source, make=True) as (home, name):
                if not move_if_free(its_name, away, name, home):
                    return "another file is in its place"
                # `move_if_free` has synced the new folder; now the removal from the trash is
                # durable as well.
                fsync_open_directory(away)
    except (OSError, ValueError) as error:
        return f"it could not be moved back: {error}"
    return None


def _is_home(folder: Path, source: str, moved: Identity) -> bool:
    """Return True if the file is back in its folder, durably."""
    with (
        contextlib.suppress(FileNotFoundError),
        open_beneath(folder, source) as (home, name),
    ):
        if is_the_file(fresh_status(name, home), moved):
            # A killed call may have moved it without coming to this fsync, and the journal is about
            # to say that it is back.
            fsync_open_directory(home)
            return True
    return False

"""Deleting a proven shard's sources: intent to the journal, unlink, done to the journal.

Where there is a trash, they are moved into it instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from ctrate_convert.conversion.gate import settle_unlinks, trash_source, unlink_source
from ctrate_convert.conversion.plans import load_samples
from ctrate_convert.conversion.proof import DeletionProof, Kept, prove
from ctrate_convert.conversion.readback import ReadShard
from ctrate_convert.conversion.source_file import GONE, source_is_gone
from ctrate_convert.conversion.trash import is_in_trash, place_in_trash, trash_of
from ctrate_convert.durable import append_lines, read_regular
from ctrate_convert.errors import DamageError, environment_problem
from ctrate_convert.paths import Dataset
from ctrate_convert.schemas.base import parse
from ctrate_convert.schemas.journal import Event, JournalLine
from ctrate_convert.schemas.manifest import Manifest
from ctrate_convert.schemas.plan import Plan, PlannedShard
from ctrate_convert.schemas.record import ShardRecord

_MISSING = "it is missing, though this program did not delete it"


@dataclass
class Deletion:
    """What became of the sources of one or more shards."""

    deleted_files: int = 0
    freed_bytes: int = 0
    trashed_files: int = 0
    trashed_bytes: int = 0
    trashes: set[str] = field(default_factory=set)
    kept: list[Kept] = field(default_factory=list)

    def add(self, other: Deletion) -> None:
        """Sum up."""
        self.deleted_files += other.deleted_files
        self.freed_bytes += other.freed_bytes
        self.trashed_files += other.trashed_files
        self.trashed_bytes += other.trashed_bytes
        self.trashes |= other.trashes
        self.kept.extend(other.kept)


def delete_sources(
    dataset: Dataset,
    plan: Plan,
    shard: PlannedShard,
    record: ShardRecord,
    read_back: ReadShard,
    manifest: Manifest,
    authorised_by: str,
    check_stop: Callable[[], None] = lambda: None,
    trash: Path | None = None,
) -> Deletion:
    """Delete what the gate lets go of this shard's sources; the rest is kept, with reasons.

    With ``trash`` they are moved there. Killed in between, the journal holds the intents, and the
    next call finishes the work.

    Raises:
        EnvironmentProblem: the journal cannot be written; then nothing is deleted.
        Interrupted: ``check_stop`` raised it, between two files.
    """
    samples = load_samples(dataset, plan, shard)
    proofs, kept = prove(dataset, plan, samples, record, read_back, manifest, check_stop)
    journal = read_journal(dataset, shard.index)
    taking = _Taking(shard.index, trash, journal, authorised_by)
    try:
        return _delete(dataset.journal(shard.index), taking, proofs, kept, check_stop)
    except OSError as error:
        raise environment_problem(
            error, "deleting sources, and noting it in the journal"
        ) from error


@dataclass(frozen=True)
class _Taking:
    """How sources are taken away, and how the journal tells of it."""

    shard: int
    trash: Path | None
    journal: list[JournalLine]
    authorised_by: str

    def take(self, proof: DeletionProof) -> str | None:
        if self.trash is None:
            return unlink_source(proof)
        return trash_source(proof, self.trash)

    def intent(self, proof: DeletionProof) -> str:
        return self._line("intent", proof, trash=self._target(proof))

    def done(self, proof: DeletionProof) -> str:
        event: Event = "deleted" if self.trash is None else "trashed"
        return self._line(event, proof, trash=self._target(proof))

    def missing(self, proof: DeletionProof) -> str | None:
        """The line for a source that is gone before this call did anything."""
        if proof.key in open_intents(self.journal):
            return self.gone(proof)
        newest = [line for line in self.journal if line.key == proof.key][-1:]
        if any(is_done(line) or line.reason == _MISSING for line in newest):
            return None
        return self._line("kept", proof, _MISSING)

    def gone(self, proof: DeletionProof) -> str:
        """The line that a killed process had no time for, or that another one was faster with."""
        for line in reversed(self.journal):
            trash = trash_of(line, self.shard) if line.key == proof.key else None
            if trash and is_in_trash(trash, self._place(proof), proof.source):
                return self._line("trashed", proof, trash=line.trash)
        return self._line("found_gone", proof)

    def kept(self, entry: Kept) -> str:
        return self._line("kept", entry, entry.reason)

    def _place(self, proof: DeletionProof) -> str:
        return place_in_trash(self.shard, proof.source.source)

    def _target(self, proof: DeletionProof) -> str:
        return "" if self.trash is None else str(self.trash / self._place(proof))

    def _line(
        self, event: Event, of: DeletionProof | Kept, reason: str = "", trash: str = ""
    ) -> str:
        source, size_bytes = (
            (of.source, of.size_bytes)
            if isinstance(of, Kept)
            else (of.source.source, of.source.size_bytes)
        )
        return journal_line(
            event, of.key, source, size_bytes, self.authorised_by, reason=reason, trash=trash
        )


def _delete(
    journal: Path,
    taking: _Taking,
    proofs: list[DeletionProof],
    kept: list[Kept],
    check_stop: Callable[[], None],
) -> Deletion:
    result = Deletion(kept=kept)
    ready: list[DeletionProof] = []
    missing: list[DeletionProof] = []
    for proof in proofs:
        (missing if source_is_gone(proof.data_folder, proof.source) else ready).append(proof)
    done: list[str] = [taking.kept(entry) for entry in kept]
    done += filter(None, map(taking.missing, missing))
    gone = [*missing]
    if ready:
        append_lines(journal, [taking.intent(proof) for proof in ready])
    try:
        for proof in ready:
            check_stop()
            doubt = taking.take(proof)
            was_there = doubt != GONE
            if doubt and was_there:
                entry = Kept(proof.key, proof.source.source, proof.source.size_bytes, doubt)
                result.kept.append(entry)
                done.append(taking.kept(entry))
                continue
            gone.append(proof)
            done.append(taking.done(proof) if was_there else taking.gone(proof))
            if was_there and taking.trash:
                result.trashed_files += 1
                result.trashed_bytes += proof.source.size_bytes
                result.trashes.add(str(taking.trash))
            elif was_there:
                result.deleted_files += 1
                result.freed_bytes += proof.source.size_bytes
    finally:
        settle_unlinks(gone)
        if done:
            append_lines(journal, done)
    return result


def journal_line(
    event: Event,
    key: str,
    source: str,
    size_bytes: int,
    authorised_by: str,
    *,
    reason: str = "",
    trash: str = "",
) -> str:
    """One line of a journal, of now."""
    return JournalLine(
        event=event,
        key=key,
        source=source,
        size_bytes=size_bytes,
        time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        authorised_by=authorised_by,
        reason=reason,
        trash=trash,
    ).model_dump_json()


def is_done(line: JournalLine) -> bool:
    """Whether the line says that the source was taken away."""
    return line.event in ("deleted", "found_gone", "trashed")


def read_journal(dataset: Dataset, shard: int) -> list[JournalLine]:
    """The journal's readable lines; a line that a crash cut short is passed over."""
    path: Path = dataset.journal(shard)
    lines: list[JournalLine] = []
    with contextlib.suppress(FileNotFoundError):
        for raw in read_regular(path).splitlines():
            with contextlib.suppress(DamageError):
                lines.append(parse(JournalLine, raw, path))
    return lines


def open_intents(journal: Sequence[JournalLine]) -> dict[str, JournalLine]:
    """The intents that no later line of their key has closed."""
    found: dict[str, JournalLine] = {}
    for line in journal:
        if line.event == "intent":
            found[line.key] = line
        else:
            found.pop(line.key, None)
    return found

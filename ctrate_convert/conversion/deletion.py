"""Deleting a proven shard's sources: intent to the journal, unlink, done to the journal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from ctrate_convert.conversion.gate import (
    DeletionProof,
    Kept,
    doubt_about_source,
    prove,
    settle_unlinks,
    unlink_source,
)
from ctrate_convert.conversion.plans import load_samples
from ctrate_convert.conversion.readback import ReadShard
from ctrate_convert.durable import append_lines
from ctrate_convert.errors import DamageError, environment_problem
from ctrate_convert.paths import Dataset
from ctrate_convert.schemas.base import parse
from ctrate_convert.schemas.journal import JournalLine
from ctrate_convert.schemas.manifest import Manifest
from ctrate_convert.schemas.plan import Plan, PlannedShard
from ctrate_convert.schemas.record import ShardRecord

Event = Literal["intent", "deleted", "found_gone", "kept"]


@dataclass
class Deletion:
    """What became of the sources of one or more shards."""

    deleted_files: int = 0
    freed_bytes: int = 0
    kept: list[Kept] = field(default_factory=list)

    def add(self, other: Deletion) -> None:
        """Sum up."""
        self.deleted_files += other.deleted_files
        self.freed_bytes += other.freed_bytes
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
) -> Deletion:
    """Delete what the gate lets go of this shard's sources; the rest is kept, with reasons.

    Killed in between, the journal holds the intents, and the next call finishes the work.

    Raises:
        EnvironmentProblem: the journal cannot be written; then nothing is deleted.
        Interrupted: ``check_stop`` raised it, between two files.
    """
    samples = load_samples(dataset, plan, shard)
    proofs, kept = prove(dataset, plan, samples, record, read_back, manifest)
    already = {line.key for line in read_journal(dataset, shard.index) if _is_done(line)}
    ready: list[DeletionProof] = []
    for proof in proofs:
        if proof.key in already and not _exists(proof):
            continue
        doubt = doubt_about_source(proof.data_folder, proof.source, dataset.out)
        if doubt:
            kept.append(Kept(proof.key, proof.source.source, proof.source.size_bytes, doubt))
        else:
            ready.append(proof)
    try:
        return _delete(
            dataset.journal(shard.index), dataset.out, ready, kept, authorised_by, check_stop
        )
    except OSError as error:
        raise environment_problem(
            error, "deleting sources, and noting it in the journal"
        ) from error


def _delete(
    journal: Path,
    out: Path,
    ready: list[DeletionProof],
    kept: list[Kept],
    authorised_by: str,
    check_stop: Callable[[], None],
) -> Deletion:
    result = Deletion(kept=kept)
    intents = [_line("intent", proof, authorised_by) for proof in ready if _exists(proof)]
    if intents:
        append_lines(journal, intents)
    done: list[str] = [_line("kept", entry, authorised_by, entry.reason) for entry in kept]
    gone: list[DeletionProof] = []
    try:
        for proof in ready:
            check_stop()
            was_there = _exists(proof)
            doubt = unlink_source(proof, out)
            if doubt:
                entry = Kept(proof.key, proof.source.source, proof.source.size_bytes, doubt)
                result.kept.append(entry)
                done.append(_line("kept", entry, authorised_by, doubt))
                continue
            gone.append(proof)
            done.append(_line("deleted" if was_there else "found_gone", proof, authorised_by))
            result.deleted_files += was_there
            result.freed_bytes += proof.source.size_bytes if was_there else 0
    finally:
        settle_unlinks(gone)
        if done:
            append_lines(journal, done)
    return result


def _exists(proof: DeletionProof) -> bool:
    return (proof.data_folder / proof.source.source).is_symlink() or (
        proof.data_folder / proof.source.source
    ).exists()


def _line(event: Event, of: DeletionProof | Kept, authorised_by: str, reason: str = "") -> str:
    source, size_bytes = (
        (of.source, of.size_bytes)
        if isinstance(of, Kept)
        else (of.source.source, of.source.size_bytes)
    )
    return JournalLine(
        event=event,
        key=of.key,
        source=source,
        size_bytes=size_bytes,
        time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        authorised_by=authorised_by,
        reason=reason,
    ).model_dump_json()


def _is_done(line: JournalLine) -> bool:
    return line.event in ("deleted", "found_gone")


def read_journal(dataset: Dataset, shard: int) -> list[JournalLine]:
    """The journal's readable lines; a line that a crash cut short is passed over."""
    path: Path = dataset.journal(shard)
    lines: list[JournalLine] = []
    with contextlib.suppress(FileNotFoundError):
        for raw in path.read_bytes().splitlines():
            with contextlib.suppress(DamageError):
                lines.append(parse(JournalLine, raw, path))
    return lines


def interrupted_deletions(dataset: Dataset, shard: int) -> frozenset[str]:
    """The keys whose deletion was intended and neither done nor given up."""
    open_keys: set[str] = set()
    for line in read_journal(dataset, shard):
        if line.event == "intent":
            open_keys.add(line.key)
        else:
            open_keys.discard(line.key)
    return frozenset(open_keys)

"""Convert one shard: its samples, settle, re-read, publish, record. The record is the commit."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ctrate_convert.errors import (
    DamageError,
    Interrupted,
    RefusedError,
    SampleError,
    UnreadableSource,
    environment_problem,
)
from ctrate_convert.formats.tar import TarWriter
from ctrate_convert.shards.readback import FileIdentity, ReadShard, read_shard
from ctrate_convert.shards.sample import convert_sample
from ctrate_convert.sources.kinds import fetch_ahead
from ctrate_convert.store.durable import PartialFile, create_once, fsync_directory, read_regular
from ctrate_convert.store.fresh import fresh_status
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import load_record
from ctrate_convert.store.plans import load_samples
from ctrate_convert.store.records.plan import Plan, PlannedSample, PlannedShard
from ctrate_convert.store.records.record import (
    ConvertedSample,
    FailedSample,
    ShardRecord,
    TarRecord,
    Worker,
)
from ctrate_convert.store.set_aside import set_aside

OnProgress = Callable[[int, int], None]
"""A function called with the source bytes and samples since its last call.

It may raise `Interrupted`.
"""


@dataclass(frozen=True)
class PublishedShard:
    """A shard with its record. ``fresh``: this call wrote the record.

    ``verified`` is the published file if this call has read it back from storage.
    """

    record: ShardRecord
    verified: FileIdentity | None = None
    fresh: bool = False


def convert_shard(
    dataset: Dataset,
    plan: Plan,
    shard: PlannedShard,
    attempt: str,
    on_progress: OnProgress,
    on_written: Callable[[], None] = lambda: None,
    *,
    decode: bool = True,
    lock_held: bool = False,
    scratch: Path | None = None,
) -> PublishedShard:
    """Publish ``shard`` and its record, or find that another process has done so.

    Nothing that is recorded is touched. Whatever this function raises, no part of the shard stays
    behind, no source was changed, and the same call can be made again. ``on_written`` is called
    when all samples are converted, before the shard is settled and re-read. Without ``decode`` the
    re-read compares only the stored bytes: another process is going to decode the arrays.
    ``lock_held``: no other process is at this shard, so a file with its name and without a record
    was left behind. ``scratch`` is the folder for scratch files; without it the shard's own.

    Raises:
        EnvironmentProblem: the output cannot be written.
        DamageError: what was written does not read back.
        RefusedError: another file has the shard's name.
        Interrupted: ``on_progress`` raised it.
    """
    final = dataset.shard(shard.index)
    with contextlib.suppress(FileNotFoundError):
        record = load_record(dataset, plan, shard.index)
        fsync_directory(dataset.records)  # its writer may have been killed before its fsync
        return PublishedShard(record)
    started, clock = datetime.now(UTC), time.monotonic()
    cpu_clock = time.process_time()
    samples = load_samples(dataset, plan, shard)
    try:
        with PartialFile(final) as partial:
            outcomes, source_bytes = _convert_samples(
                samples, plan, partial, on_progress, scratch or final.parent
            )
            converted = [s for s in outcomes if isinstance(s, ConvertedSample)]
            read_back = None
            if converted:
                on_written()
                partial.settle()
                read_back = _read_and_publish(
                    dataset, plan, shard, partial, converted, decode=decode, lock_held=lock_held
                )
            elif os.path.lexists(final):
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    return PublishedShard(load_record(dataset, plan, shard.index))
                # The file's record is lost, and its sources cannot be converted: the file may be
                # the only copy.
                raise _taken(dataset, final, "no sample, since every source failed")
        record = ShardRecord(
            plan_id=plan.plan_id,
            shard=shard.index,
            tar=TarRecord(size_bytes=read_back.identity.size_bytes, sha256=read_back.sha256)
            if read_back
            else None,
            samples=tuple(outcomes),
            worker=Worker(attempt=attempt, host=socket.gethostname(), pid=os.getpid()),
            started=started.isoformat(timespec="seconds"),
            elapsed_s=round(time.monotonic() - clock, 3),
            cpu_s=round(time.process_time() - cpu_clock, 3),
            source_bytes=source_bytes,
        ).as_stored()
        if create_once(dataset.record(shard.index), record.to_json()):
            return PublishedShard(record, _published_as(final, read_back), fresh=True)
    except OSError as error:
        raise environment_problem(error, f"writing {final.name}", final.parent) from error
    # Another process recorded the shard first, and its record counts.
    return PublishedShard(load_record(dataset, plan, shard.index))


def _published_as(final: Path, read_back: ReadShard | None) -> FileIdentity | None:
    """Return the identity of the published file if it is the one that was read.

    The file's change time is newer than when it was read, because it got its name since.
    """
    if read_back is None:
        return None
    with contextlib.suppress(OSError):
        identity = FileIdentity.of(fresh_status(final))
        return identity if identity.is_file_of(read_back.identity) else None
    return None


def _convert_samples(
    samples: tuple[PlannedSample, ...],
    plan: Plan,
    partial: PartialFile,
    on_progress: OnProgress,
    scratch: Path,
) -> tuple[list[ConvertedSample | FailedSample], int]:
    tar = TarWriter(partial)
    outcomes: list[ConvertedSample | FailedSample] = []
    source_bytes = 0
    for sample, following in itertools.zip_longest(samples, samples[1:]):
        start = tar.position
        if following and following.source != sample.source:
            # The kernel fetches the next source while this one is converted.
            fetch_ahead(Path(plan.settings.data_folder) / following.source)
        try:
            done = convert_sample(
                sample, plan.settings, tar, scratch, lambda size: on_progress(size, 0)
            )
            outcomes.append(done)
            # Of a shard that views are made from, what it holds of this sample.
            of_view = plan.settings.view is not None
            source_bytes += sample.source_size_bytes if of_view else done.source.size_bytes
        # Trouble with a source is a SampleError: an OSError comes from the output and hits every
        # sample.
        except (OSError, Interrupted):
            raise
        except Exception as error:  # noqa: BLE001 - the sample boundary: one broken volume costs only itself
            tar.rollback(start)
            outcomes.append(_failed(sample, plan, error))
        on_progress(0, 1)
    tar.finish()
    return outcomes, source_bytes


def _failed(sample: PlannedSample, plan: Plan, error: Exception) -> FailedSample:
    reason = (
        error.one_line()
        if isinstance(error, SampleError)
        else f"unexpected {type(error).__name__}: {error}"
    )
    mtime_ns = ctime_ns = 0
    with contextlib.suppress(OSError):
        # A later plan tries the sample again if one of these times has changed.
        status = os.stat(Path(plan.settings.data_folder) / sample.source)
        mtime_ns, ctime_ns = status.st_mtime_ns, status.st_ctime_ns
    return FailedSample(
        key=sample.key,
        reason=reason,
        source=sample.source,
        source_mtime_ns=mtime_ns,
        source_ctime_ns=ctime_ns,
        unreadable=isinstance(error, UnreadableSource),
    )


def _read_and_publish(
    dataset: Dataset,
    plan: Plan,
    shard: PlannedShard,
    partial: PartialFile,
    converted: list[ConvertedSample],
    *,
    decode: bool,
    lock_held: bool,
) -> ReadShard:
    """Re-read the settled partial file from storage, then give it the shard's name."""
    layout = plan.settings.layout
    read_back = read_shard(partial.path, converted, layout, decode=decode)
    read_back.require_sound()
    if partial.publish():
        return read_back
    # The name is taken by a process that died before it wrote the record, or is about to write it.
    try:
        existing = read_shard(partial.final, converted, layout)
    except OSError as error:
        raise environment_problem(error, f"reading {partial.final}") from error
    if existing.sha256 == read_back.sha256 or dataset.record(shard.index).exists():
        return existing  # a record that exists by now counts, not ours
    if lock_held and _was_left_behind(dataset, plan, shard, converted):
        set_aside(partial.final)
        if partial.publish():
            return read_back
    expected = f"sha256 {read_back.sha256[:16]}…"
    raise _taken(dataset, partial.final, expected, f"sha256 {existing.sha256[:16]}…")


def _was_left_behind(
    dataset: Dataset, plan: Plan, shard: PlannedShard, converted: list[ConvertedSample]
) -> bool:
    """Return True if nothing depends on the file that has the shard's name and no record.

    A kill between link and record leaves such a file, and its sources were then corrected. Return
    False if a journal says that a source went, or if a source cannot be converted: then the file
    may be the only copy of a volume. The manifest is a cache and has no say.
    """
    folder = Path(plan.settings.data_folder)
    return (
        len(converted) == shard.samples
        and all(os.path.lexists(folder / one.source.source) for one in converted)
        and stat.S_ISREG(os.lstat(dataset.shard(shard.index)).st_mode)
        and not os.path.lexists(dataset.record(shard.index))
        and not _has_lines(dataset.journal(shard.index))
    )


def _has_lines(journal: Path) -> bool:
    """Return True unless the journal is known to be empty."""
    try:
        return bool(read_regular(journal).strip())
    except FileNotFoundError:
        return False
    except (DamageError, OSError):
        return True


def _taken(dataset: Dataset, final: Path, expected: str, seen: str | None = None) -> RefusedError:
    return RefusedError(
        "another file has this shard's name, and no record tells what it is",
        where=final,
        seen=seen,
        expected=expected,
        next_command=f"mv {final} somewhere else, then: ctrate-convert run {dataset.out}",
    )

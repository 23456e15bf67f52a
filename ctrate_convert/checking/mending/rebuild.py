"""Rebuild a shard's record from the shard and the plan, if the record is damaged or missing.

The shard does not tell what its sources were. Their size and modification time come from the plan;
change time and inode are set to 0. So a rebuilt record tells readers where everything lies, and
proves nothing by itself.
"""

from __future__ import annotations

import os
import socket
import time
from datetime import UTC, datetime

from ctrate_convert.checking.mending.rebuild_sample import rebuild_sample
from ctrate_convert.checking.mending.rebuild_scan import ScannedShard, scan_shard
from ctrate_convert.errors import DamageError
from ctrate_convert.shards.readback import read_shard
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plans import load_samples
from ctrate_convert.store.records.plan import Plan, PlannedSample, PlannedShard
from ctrate_convert.store.records.record import (
    ConvertedSample,
    FailedSample,
    ShardRecord,
    TarRecord,
    Worker,
)

NOT_IN_THE_SHARD = "not in the shard; its record was rebuilt"
WORKER = "verify --repair"


def rebuild_record(
    dataset: Dataset, plan: Plan, shard: PlannedShard, merged_sha256: str | None
) -> ShardRecord:
    """Return the record of ``shard`` that follows from its bytes on storage and the plan's lines.

    ``merged_sha256`` is the shard's SHA-256 in the manifest, or None if the manifest has none.
    Nothing is written.

    Raises:
        DamageError: the shard is not the one of the manifest, is not sound, or holds something
            that was not planned into it; or its lines in the plan are damaged.
        OSError: the shard cannot be read.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    cpu_clock = time.process_time()
    planned = load_samples(dataset, plan, shard)
    scanned = scan_shard(dataset.shard(shard.index), plan.settings.layout)
    if merged_sha256 is not None and scanned.sha256 != merged_sha256:
        raise DamageError(
            "the shard is not the one that the manifest knows",
            where=scanned.path,
            seen=f"SHA-256 {scanned.sha256[:16]}…",
            expected=f"{merged_sha256[:16]}…",
        )
    _require_planned(scanned, planned)
    samples = _samples(scanned, plan, planned)
    converted = [one for one in samples if isinstance(one, ConvertedSample)]
    _require_sound(scanned, plan, converted)
    return ShardRecord(
        plan_id=plan.plan_id,
        shard=shard.index,
        tar=TarRecord(size_bytes=scanned.size_bytes, sha256=scanned.sha256),
        samples=tuple(samples),
        worker=Worker(attempt=WORKER, host=socket.gethostname(), pid=os.getpid()),
        started=started.isoformat(timespec="seconds"),
        elapsed_s=round(time.monotonic() - clock, 3),
        cpu_s=round(time.process_time() - cpu_clock, 3),
        source_bytes=sum(line.source_size_bytes for line in planned if line.key in scanned.samples),
    ).as_stored()


def _require_planned(scanned: ScannedShard, planned: tuple[PlannedSample, ...]) -> None:
    """Raise DamageError unless the shard's samples are planned ones, in the planned order."""
    keys = list(scanned.samples)
    expected = [one.key for one in planned if one.key in scanned.samples]
    if keys != expected or not keys:
        strangers = sorted(scanned.samples.keys() - {one.key for one in planned})
        raise DamageError(
            "the shard holds other samples than were planned into it",
            where=scanned.path,
            seen=", ".join((strangers or keys)[:3]) or "none",
            expected=", ".join(one.key for one in planned[:3]) + ", …",
        )


def _samples(
    scanned: ScannedShard, plan: Plan, planned: tuple[PlannedSample, ...]
) -> list[ConvertedSample | FailedSample]:
    return [
        rebuild_sample(scanned, one, plan.settings)
        if one.key in scanned.samples
        else FailedSample(
            key=one.key,
            reason=NOT_IN_THE_SHARD,
            source=one.source,
            source_mtime_ns=one.source_mtime_ns,
            source_ctime_ns=0,
        )
        for one in planned
    ]


def _require_sound(scanned: ScannedShard, plan: Plan, converted: list[ConvertedSample]) -> None:
    """Raise DamageError unless the reader that checks new shards confirms the new record."""
    read_back = read_shard(scanned.path, converted, plan.settings.layout)
    read_back.require_sound()
    if read_back.sha256 != scanned.sha256:
        raise DamageError("the shard changed while it was read", where=scanned.path)

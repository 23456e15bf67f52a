"""The proof that one source is safely in a published shard. Only `prove` makes one.

It rests on what an independent read of the shard found, on the record and on the plan; the gate
looks at shard, record and source once more right before it takes the source away.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import NoReturn

from ctrate_convert.conversion.manifest import manifest_shards
from ctrate_convert.conversion.readback import FileIdentity, ReadShard
from ctrate_convert.conversion.sample import reconvert_digest
from ctrate_convert.conversion.source_file import doubt_about_source
from ctrate_convert.errors import DamageError, RefusedError, SampleError
from ctrate_convert.paths import Dataset
from ctrate_convert.schemas.base import read
from ctrate_convert.schemas.manifest import Manifest, ManifestShard
from ctrate_convert.schemas.plan import Plan, PlannedSample
from ctrate_convert.schemas.record import (
    ConvertedSample,
    ShardRecord,
    SourceFingerprint,
)

_ONLY_PROVE = object()


@dataclass(frozen=True)
class DeletionProof:
    """That one source is safely in a published shard. Cannot be made outside `prove`.

    ``shard_sha256`` and ``members`` (name to BLAKE3) are as read from storage just now;
    ``max_abs_error`` is what the sample's voxels lost, and ``max_error`` what the plan allows
    (None: what its array type costs). ``record_identity`` is of the record that says all this.

    The seal is not kept: a copy that names another source would need it again, and has it not.
    """

    key: str
    data_folder: Path
    out: Path
    source: SourceFingerprint
    shard_index: int
    shard: Path
    shard_identity: FileIdentity
    shard_sha256: str
    members: Mapping[str, str]
    max_abs_error: float
    max_error: float | None
    record: Path
    record_identity: FileIdentity
    record_sha256: str
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        if seal is not _ONLY_PROVE:
            raise RefusedError("a deletion proof can only be made by the gate's own check")

    def __init_subclass__(cls) -> NoReturn:
        raise RefusedError("there is one kind of deletion proof")

    def __reduce__(self) -> NoReturn:
        raise RefusedError("a deletion proof is neither copied nor stored: it holds for now only")


@dataclass(frozen=True)
class Kept:
    """A source that stays, and why."""

    key: str
    source: str
    size_bytes: int
    reason: str


def prove(
    dataset: Dataset,
    plan: Plan,
    samples: Sequence[PlannedSample],
    record: ShardRecord,
    read_back: ReadShard,
    manifest: Manifest,
    check_stop: Callable[[], None] = lambda: None,
) -> tuple[list[DeletionProof], list[Kept]]:
    """Check everything that can be checked before the deletion itself, sample by sample.

    ``samples`` are the shard's own lines of the plan; ``read_back`` is what an independent read
    of the shard from storage found. A source that is gone is no doubt.

    Where the record was merged by another process than the one that converted the shard, nothing
    but the record tells what its sources were: then each is converted once more and compared with
    what the shard holds.

    Raises:
        Interrupted: ``check_stop`` raised it, between two sources.
    """
    entry = manifest_shards(manifest).get(dataset.shard(record.shard).name)
    doubt = _doubt_about_shard(plan, record, read_back, entry)
    try:
        shard_identity = _identity_of_shard(dataset, record, read_back)
        record_identity = _identity_of_record(dataset, record)
    except (OSError, DamageError) as error:
        doubt = doubt or f"shard or record cannot be relied on now: {error}"
    planned = {sample.key: sample.source for sample in samples}
    proofs: list[DeletionProof] = []
    kept: list[Kept] = []
    for sample in record.converted:
        check_stop()
        why = doubt or _doubt_about_sample(dataset, plan, planned, sample, read_back, entry)
        if why:
            kept.append(Kept(sample.key, sample.source.source, sample.source.size_bytes, why))
            continue
        proofs.append(
            DeletionProof(
                key=sample.key,
                data_folder=Path(plan.settings.data_folder),
                out=dataset.out,
                source=sample.source,
                shard_index=record.shard,
                shard=dataset.shard(record.shard),
                shard_identity=shard_identity,
                shard_sha256=read_back.sha256,
                members={one.name: read_back.digests[one.name] for one in sample.all_members},
                max_abs_error=sample.array.max_abs_error,
                max_error=plan.settings.max_error,
                record=dataset.record(record.shard),
                record_identity=record_identity,
                record_sha256=record.stored_sha256(),
                seal=_ONLY_PROVE,
            )
        )
    return proofs, kept


def _doubt_about_shard(
    plan: Plan, record: ShardRecord, read_back: ReadShard, entry: ManifestShard | None
) -> str | None:
    if plan.content_id() != plan.plan_id or record.plan_id != plan.plan_id:
        return "the record does not belong to this plan"
    if read_back.damage:
        return f"the shard is damaged: {read_back.damage[0].what}"
    if record.tar is None or read_back.sha256 != record.tar.sha256:
        return "the shard's SHA-256, read again, is not the recorded one"
    if entry is None:
        return "the shard is not in the merged manifest yet"
    if entry.record_sha256 != record.stored_sha256():
        return "the manifest was merged from another record of this shard"
    return None


def _identity_of_shard(dataset: Dataset, record: ShardRecord, read_back: ReadShard) -> FileIdentity:
    """The published shard's, which is the file that was read.

    Its change time was not known before: getting its name was a change, too.
    """
    path = dataset.shard(record.shard)
    identity = FileIdentity.of(os.stat(path, follow_symlinks=False))
    if not identity.is_file_of(read_back.identity):
        raise DamageError("the shard is not the file that was verified any more", where=path)
    return identity


def _identity_of_record(dataset: Dataset, record: ShardRecord) -> FileIdentity:
    """The identity of the file that holds ``record``."""
    path = dataset.record(record.shard)
    identity = FileIdentity.of(os.stat(path, follow_symlinks=False))
    stored = read(ShardRecord, path)
    now = FileIdentity.of(os.stat(path, follow_symlinks=False))
    if stored.stored_sha256() != record.stored_sha256() or now != identity:
        raise DamageError("the stored record is another one", where=path)
    return identity


def _doubt_about_sample(
    dataset: Dataset,
    plan: Plan,
    planned: Mapping[str, str],
    sample: ConvertedSample,
    read_back: ReadShard,
    entry: ManifestShard | None,
) -> str | None:
    if planned.get(sample.key) != sample.source.source:
        return "the plan does not name this source for this sample"
    for member in sample.all_members:
        if read_back.digests.get(member.name) != member.blake3:
            return f"member {member.name}, read again, has not the recorded digest"
    if entry is None or sample.key in entry.superseded:
        return "another copy of this sample counts, in a later shard"
    seen, allowed = sample.array.max_abs_error, plan.settings.max_error
    if allowed is not None and seen > allowed:
        return f"precision loss past the bound: seen {seen}, expected ≤ {allowed:.6g}"
    folder = Path(plan.settings.data_folder)
    doubt = doubt_about_source(folder, sample.source, dataset.out)
    if doubt or entry.by_converter or not os.path.lexists(folder / sample.source.source):
        return doubt
    return _doubt_about_content(dataset, plan, sample)


def _doubt_about_content(dataset: Dataset, plan: Plan, sample: ConvertedSample) -> str | None:
    """Whether the source, converted once more, is what the shard holds."""
    path = Path(plan.settings.data_folder) / sample.source.source
    try:
        digest, _ = reconvert_digest(path, sample.source.source, sample, plan.settings, dataset.out)
    except (SampleError, OSError) as error:
        return f"its record was merged later, and it cannot be compared with its shard: {error}"
    if digest != sample.array.blake3:
        return "its record was merged later, and its shard holds other voxels than it has now"
    return None

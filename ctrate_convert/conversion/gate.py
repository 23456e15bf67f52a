"""The gate: the one place that decides whether a source file may be deleted, and deletes it.

A file goes only against a `DeletionProof`, and only `prove` makes one. Every condition is looked
at again right before the unlink, relative to an open directory, following no link. Any doubt
means: keep the source.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import NoReturn

from ctrate_convert.conversion.readback import FileIdentity, ReadShard
from ctrate_convert.conversion.trash import open_in_trash
from ctrate_convert.durable import fsync_open_directory, move_if_free, open_beneath
from ctrate_convert.errors import RefusedError, SampleError
from ctrate_convert.formats.cast import Measured
from ctrate_convert.paths import Dataset
from ctrate_convert.schemas.manifest import Manifest
from ctrate_convert.schemas.plan import Plan, PlannedSample
from ctrate_convert.schemas.record import (
    ArrayRecord,
    ConvertedSample,
    ShardRecord,
    SourceFingerprint,
)

GONE = "it is gone already"
"""The doubt about a source that another hand was faster with: not deleted here, nor kept."""

_ONLY_THE_GATE = object()


@dataclass(frozen=True)
class DeletionProof:
    """That one source is safely in a published shard. Cannot be made outside `prove`.

    The seal is not kept: a copy that names another source would need it again, and has it not.
    """

    key: str
    data_folder: Path
    source: SourceFingerprint
    shard: Path
    shard_identity: FileIdentity
    shard_sha256: str
    array_blake3: str
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        if seal is not _ONLY_THE_GATE:
            raise RefusedError("a deletion proof can only be made by the gate's own check")

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
) -> tuple[list[DeletionProof], list[Kept]]:
    """Check everything that can be checked before the deletion itself, sample by sample.

    ``samples`` are the shard's own lines of the plan; ``read_back`` is what an independent read
    of the shard from storage found.
    """
    doubt = _doubt_about_shard(dataset, plan, record, read_back, manifest)
    planned = {sample.key: sample.source for sample in samples}
    proofs: list[DeletionProof] = []
    kept: list[Kept] = []
    for sample in record.converted:
        why = doubt or _doubt_about_sample(plan, planned, sample, read_back)
        if why:
            kept.append(Kept(sample.key, sample.source.source, sample.source.size_bytes, why))
            continue
        proofs.append(
            DeletionProof(
                key=sample.key,
                data_folder=Path(plan.settings.data_folder),
                source=sample.source,
                shard=dataset.shard(record.shard),
                shard_identity=read_back.identity,
                shard_sha256=read_back.sha256,
                array_blake3=sample.array.blake3,
                seal=_ONLY_THE_GATE,
            )
        )
    return proofs, kept


def _doubt_about_shard(
    dataset: Dataset, plan: Plan, record: ShardRecord, read_back: ReadShard, manifest: Manifest
) -> str | None:
    if plan.content_id() != plan.plan_id or record.plan_id != plan.plan_id:
        return "the record does not belong to this plan"
    if read_back.damage:
        return f"the shard is damaged: {read_back.damage[0].what}"
    if record.tar is None or read_back.sha256 != record.tar.sha256:
        return "the shard's SHA-256, read again, is not the recorded one"
    name = dataset.shard(record.shard).name
    entry = next((shard for shard in manifest.shards if shard.name == name), None)
    if entry is None:
        return "the shard is not in the merged manifest yet"
    if entry.record_sha256 != record.stored_sha256():
        return "the manifest was merged from another record of this shard"
    return None


def _doubt_about_sample(
    plan: Plan, planned: dict[str, str], sample: ConvertedSample, read_back: ReadShard
) -> str | None:
    if planned.get(sample.key) != sample.source.source:
        return "the plan does not name this source for this sample"
    for member in sample.all_members:
        if read_back.digests.get(member.name) != member.blake3:
            return f"member {member.name}, read again, has not the recorded digest"
    try:
        _measured(sample.array).check(plan.settings.max_error)
    except SampleError as error:
        return error.one_line()
    return None


def _measured(array: ArrayRecord) -> Measured:
    return Measured(
        max_abs_error=array.max_abs_error,
        value_min=array.value_min,
        value_max=array.value_max,
        nan_count=array.nan_count,
        infinite_count=array.infinite_count,
        new_infinite_count=0,
        intensity=array.intensity,
        value_scale=array.value_scale,
    )


def doubt_about_source(data_folder: Path, source: SourceFingerprint, out: Path) -> str | None:
    """Why this source must stay, looked at now; None if it may go, and if it is gone already."""
    try:
        with open_beneath(data_folder, source.source) as (directory, name):
            return _doubt_about_file(source, out, directory, name)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return f"its path cannot be followed safely: {error}"


def _doubt_about_file(
    source: SourceFingerprint, out: Path, directory: int, name: str
) -> str | None:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        return "it is a link; links are neither followed nor deleted"
    if not stat.S_ISREG(status.st_mode):
        return "it is no regular file"
    if status.st_nlink != 1:
        return f"it has {status.st_nlink} hard links; deleting one would free nothing"
    now = SourceFingerprint(
        source=source.source,
        size_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        inode=status.st_ino,
    )
    if now != source:
        return "it is not the file that was read any more (" + _difference(now, source) + ")"
    home = Path(os.readlink(f"/proc/self/fd/{directory}"))
    if home.is_relative_to(out.resolve()):
        return "it lies in the dataset directory"
    return None


def _doubt_about_published(proof: DeletionProof) -> str | None:
    try:
        status = os.stat(proof.shard, follow_symlinks=False)
    except OSError as error:
        return f"its shard cannot be seen now: {error.strerror}"
    if not stat.S_ISREG(status.st_mode) or FileIdentity.of(status) != proof.shard_identity:
        return "its shard is not the file that was verified any more"
    return None


def _difference(now: SourceFingerprint, then: SourceFingerprint) -> str:
    changed = [
        f"{name} {getattr(then, name)} → {getattr(now, name)}"
        for name in ("size_bytes", "mtime_ns", "ctime_ns", "inode")
        if getattr(now, name) != getattr(then, name)
    ]
    return ", ".join(changed)


def unlink_source(proof: DeletionProof, out: Path) -> str | None:
    """Delete the proven source, after one more look at everything; returns why not, if not.

    That is `GONE` where the source cannot be found.
    """
    return _take_away(proof, out, _unlink)


def trash_source(proof: DeletionProof, out: Path, trash: Path, place: str) -> str | None:
    """Move the proven source to ``place`` in ``trash`` instead, after the same look at everything.

    Returns why not, if not: another file system or a name that is taken, too.
    """

    def move(directory: int, name: str) -> str | None:
        for folder in (proof.data_folder, out):
            if trash.is_relative_to(folder.resolve()):
                return f"the trash {trash} lies in {folder}"
        try:
            with open_in_trash(trash, place, make=True) as (there, new_name):
                moved = move_if_free(name, directory, new_name, there)
        except FileNotFoundError as error:  # the trash's, which says nothing of the source
            raise ValueError(f"the trash {trash} cannot be used") from error
        return None if moved else f"its place in the trash is taken: {trash / place}"

    return _take_away(proof, out, move)


def _unlink(directory: int, name: str) -> None:
    os.unlink(name, dir_fd=directory)


def _take_away(
    proof: DeletionProof, out: Path, take: Callable[[int, str], str | None]
) -> str | None:
    if not isinstance(proof, DeletionProof):
        raise RefusedError("a source is deleted only against a proof")
    try:
        with open_beneath(proof.data_folder, proof.source.source) as (directory, name):
            doubt = _doubt_about_published(proof) or _doubt_about_file(
                proof.source, out, directory, name
            )
            return doubt or take(directory, name)
    except FileNotFoundError:
        return GONE
    except (OSError, ValueError) as error:
        return f"it could not be taken away: {error}"


def settle_unlinks(proofs: Iterable[DeletionProof]) -> None:
    """Make it durable that these sources are gone: no power loss brings one back.

    Raises:
        OSError: that cannot be done; the journal must not say that they are deleted.
    """
    folders = {(proof.data_folder, Path(proof.source.source).parent): proof for proof in proofs}
    for proof in folders.values():
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            open_beneath(proof.data_folder, proof.source.source) as (directory, _),
        ):
            fsync_open_directory(directory)

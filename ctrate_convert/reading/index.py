"""Index the published samples: where each sample's bytes lie, from the manifest and the records."""

from __future__ import annotations

import json
import os
import re
import shlex
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ctrate_convert.errors import DamagedShardWarning, DamageError, SettingsError
from ctrate_convert.formats.hounsfield import NOT_SCALED, ToHounsfield, to_hounsfield
from ctrate_convert.formats.members import LAYOUTS
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import load_manifest
from ctrate_convert.store.records.base import parse, sha256_hex
from ctrate_convert.store.records.geometry import ArrayAxes
from ctrate_convert.store.records.manifest import ManifestShard
from ctrate_convert.store.records.plan import Encoding, Layout
from ctrate_convert.store.records.record import ShardRecord

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
"""The beginning of a URL, of which `Path` leaves one slash."""


@dataclass(frozen=True)
class Shard:
    """A published shard: its path, its recorded length, and the command to run if it is damaged.

    ``record_sha256`` tells it from every other shard; ``cache`` is the folder for a copy of it.
    """

    path: str
    size_bytes: int
    next_command: str
    record_sha256: str = ""
    cache: str = ""

    def damage(self, what: str, *, seen: object = None, expected: object = None) -> DamageError:
        """Return the error to raise if the shard is not as its record says."""
        return DamageError(
            what, where=self.path, seen=seen, expected=expected, next_command=self.next_command
        )


class Member(NamedTuple):
    """The payload of a member."""

    name: str
    offset: int
    size_bytes: int


class ArrayMember(NamedTuple):
    """The payload of an array; the fields are those of its record."""

    name: str
    offset: int
    size_bytes: int
    dtype: str
    shape: tuple[int, int, int]
    encoding: Encoding
    value_scale: float
    value_min: float
    hu_slope: float
    hu_intercept: float
    axes: ArrayAxes


class StoredSample(NamedTuple):
    """A sample's place in its shard: enough to read it, or a part of it, and nothing before it."""

    key: str
    shard: Shard
    array: ArrayMember
    json: Member
    report: Member
    labels: Member


class Index:
    """The published samples of a dataset directory, in shard order.

    The index reads a shard's record when its samples are first asked for, and keeps it in a compact
    form. A shard whose record cannot be relied on has no samples: `damaged` holds its name and the
    reason, and `DamagedShardWarning` names it once. ``cache`` is the folder for copies of shards.

    Raises:
        SettingsError: there is no manifest in ``out``, or none that names a shard; or it is a URL
            or a file.
    """

    def __init__(self, out: str | os.PathLike[str], cache: str = "") -> None:
        self._dataset = Dataset(_folder(out))
        self._cache = cache
        manifest = load_manifest(self._dataset)
        if manifest is None:
            raise SettingsError(
                "no manifest here that can be read",
                where=self._dataset.manifest,
                next_command=f"ctrate-convert merge {self._out}",
            )
        self._plans = frozenset(manifest.plans)
        # A plain str becomes the Literal type that `LAYOUTS` has as keys.
        self._layout = next(name for name in LAYOUTS if name == manifest.layout)
        self.shards = tuple(shard for shard in manifest.shards if shard.samples)
        if not self.shards:
            raise SettingsError(
                "no shard is published yet",
                where=self._dataset.out,
                next_command=f"ctrate-convert run {self._out}",
            )
        self.damaged: dict[str, str] = {}
        self._known: dict[str, tuple[StoredSample, ...]] = {}

    def __len__(self) -> int:
        return sum(shard.samples for shard in self.shards if shard.name not in self.damaged)

    def __iter__(self) -> Iterator[StoredSample]:
        for shard in self.shards:
            yield from self.samples(shard)

    def samples(self, shard: ManifestShard) -> Sequence[StoredSample]:
        """Return the samples of one shard in their order; none if its record is damaged."""
        if shard.name not in self._known:
            try:
                self._known[shard.name] = tuple(self._load(shard))
            except (DamageError, OSError) as error:
                self._known[shard.name] = ()
                self._leave_out(shard, error)
        return self._known[shard.name]

    def forget(self) -> None:
        """Let go of all samples; their records are read again when they are asked for."""
        self._known = dict.fromkeys(self.damaged, ())

    def sound_shards(self) -> list[ManifestShard]:
        """Return the shards whose record is the merged one, by comparing each record's bytes.

        Raises:
            DamageError: there is none.
        """
        for shard in self.shards:
            if shard.name not in self._known and shard.name not in self.damaged:
                try:
                    self._record_of(shard)
                except (DamageError, OSError) as error:
                    self._known[shard.name] = ()
                    self._leave_out(shard, error)
        sound = [shard for shard in self.shards if shard.name not in self.damaged]
        if not sound:
            raise DamageError(
                f"no shard has a record that can be relied on; {self.damaged[self.shards[0].name]}",
                where=self._dataset.out,
                next_command=self._mend,
            )
        return sound

    def _leave_out(self, shard: ManifestShard, error: DamageError | OSError) -> None:
        reason = error.one_line() if isinstance(error, DamageError) else f"its record: {error}"
        self.damaged[shard.name] = reason
        # Level 4 is the caller's own line, through `sound_shards` and `open_dataset`.
        warnings.warn(
            f"{shard.name} is left out, with {shard.samples} samples: {reason}. Next: {self._mend}",
            DamagedShardWarning,
            stacklevel=4,
        )

    @property
    def _mend(self) -> str:
        return f"ctrate-convert verify {self._out} --full --repair"

    @property
    def _out(self) -> str:
        return shlex.quote(str(self._dataset.out))

    def _record_of(self, merged: ManifestShard) -> bytes:
        """Return the bytes of the record that was merged.

        The merger has checked every field of these very bytes, and checking each again would take
        seconds for all of CT-RATE. Only bytes that differ are parsed: they may still be the same
        record.
        """
        path = self._dataset.record(_number(merged))
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise DamageError(
                "the record of a shard is missing", where=path, next_command=self._mend
            ) from error
        if (
            sha256_hex(data) != merged.record_sha256
            and parse(ShardRecord, data, path).stored_sha256() != merged.record_sha256
        ):
            raise self._not_known(path)
        return data

    def _load(self, merged: ManifestShard) -> Iterator[StoredSample]:
        number = _number(merged)
        fields: dict[str, Any] = json.loads(self._record_of(merged))
        if not fields["tar"] or fields["plan_id"] not in self._plans:
            raise self._not_known(self._dataset.record(number))
        superseded = frozenset(merged.superseded)
        verify = f"ctrate-convert verify {self._out} --full"
        path, size_bytes = str(self._dataset.shard(number)), fields["tar"]["size_bytes"]
        shard = Shard(path, size_bytes, verify, merged.record_sha256, self._cache)
        for sample in fields["samples"]:
            if sample["state"] == "converted" and sample["key"] not in superseded:
                yield stored_sample(sample, shard, self._layout)

    def _not_known(self, path: Path) -> DamageError:
        return DamageError(
            "a record is not the one that the manifest knows", where=path, next_command=self._mend
        )


def scheme_of(place: str | os.PathLike[str]) -> str:
    """Return the scheme if the place is a URL, such as ``s3``, and no path of this machine."""
    scheme = _URL.match(str(place))
    return scheme[1] if scheme and not Path(place).exists() else ""


def _folder(out: str | os.PathLike[str]) -> Path:
    scheme = scheme_of(out)
    if scheme:
        raise SettingsError(
            f"{scheme}:// is not read: samples are read at their places in files", where=out,
            expected="a folder: mount the bucket, or copy the dataset to a disk; to stream whole "
            "shards from there, give their URLs to webdataset with "
            ".decode(ctrate_convert.decoder())",
        )  # fmt: skip
    if Path(out).exists() and not Path(out).is_dir():
        raise SettingsError("not a dataset directory", where=out, seen="a file")
    return Path(out)


def stored_sample(sample: dict[str, Any], shard: Shard, layout: Layout) -> StoredSample:
    """Return a sample's place in its shard, from the fields of its record.

    Raises:
        DamageError: the record lacks a member.
    """
    key, array, names = sample["key"], sample["array"], LAYOUTS[layout]
    members = {member["name"]: member for member in sample["members"]}
    try:
        json_member, report, labels = (
            _member(members[f"{key}.{suffix}"])
            for suffix in (names.json, names.report, names.labels)
        )
    except KeyError as error:
        raise shard.damage(f"the record of {key} lacks a member", expected=error.args[0]) from error
    depth, height, width = array["shape"]
    hounsfield = _hounsfield(array)
    volume = ArrayMember(
        array["name"],
        array["offset"],
        array["size_bytes"],
        array["dtype"],
        (depth, height, width),
        array["encoding"],
        array["value_scale"],
        array["value_min"],
        hounsfield.slope,
        hounsfield.intercept,
        sample.get("geometry", {}).get("axes", ""),
    )
    return StoredSample(key, shard, volume, json_member, report, labels)


def _hounsfield(array: dict[str, Any]) -> ToHounsfield:
    if "hu_slope" in array:
        return ToHounsfield(array["hu_slope"], array["hu_intercept"])
    # Records of earlier versions have only the scale that the voxels show.
    return to_hounsfield(array["intensity"], NOT_SCALED, array["value_scale"], {})


def _member(fields: dict[str, Any]) -> Member:
    return Member(fields["name"], fields["offset"], fields["size_bytes"])


def _number(shard: ManifestShard) -> int:
    return int(Path(shard.name).stem.removeprefix("shard-"))

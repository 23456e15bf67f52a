"""Every byte of a source is in its shard, or is named as left out; nothing is guessed."""

from __future__ import annotations

import base64
import functools
import io
import json
import os
import random
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrate_convert import Volumes
from ctrate_convert.errors import DamageError, ExitCode, SampleError
from ctrate_convert.formats.npy_header import header_bytes
from ctrate_convert.sources.extra import MAX_EXTRA_BYTES
from ctrate_convert.sources.npz import NpzSource
from ctrate_convert.synthetic import SyntheticCtRate
from tests.promises.hostile import RunsOnLoad, fields, npy, npy_of, packed
from tests.support import (
    Array,
    Converted,
    convert_here,
    convert_words,
    plan_words,
    read_dataset,
    run_here,
    same_voxels,
    strict_json,
)

Make = Callable[..., SyntheticCtRate]
Extra = list[dict[str, Any]]

VOLUME = np.arange(60, dtype=np.int16).reshape(5, 4, 3)
PROVENANCE = {"affine": {"original": [[0.7, 0, 0], [0, 0.7, 0]]}, "orientation": "LPS ü"}
NAMES = ("name", "dtype", "shape", "fortran_order", "header_base64", "base64", "json")


def saved(save: Callable[..., None] = np.savez, /, **arrays: Any) -> bytes:
    stream = io.BytesIO()
    save(stream, **arrays)
    return stream.getvalue()


def appended(data: bytes, comment: bytes = b"", **files: bytes) -> bytes:
    stream = io.BytesIO(data)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.comment = comment
        for name, content in files.items():
            archive.writestr(name.replace("_", "."), content)
    return stream.getvalue()


@pytest.fixture
def written(tmp_path: Path) -> Callable[[bytes], Path]:
    """Writes bytes as an NPZ."""

    def write(data: bytes) -> Path:
        path = tmp_path / "source.npz"
        path.write_bytes(data)
        return path

    return write


def refusal(data: bytes, path: Path, array_key: str | None = None) -> str | None:
    """Why a source is refused, at planning or while it is read to its end."""
    path.write_bytes(data)
    try:
        with NpzSource(path, array_key) as source:
            for _ in source.blocks(1000):
                pass
            source.source_extra()
    except SampleError as error:
        return error.one_line()
    return None


def left_out(path: Path, array_key: str | None = None) -> dict[str, str]:
    with NpzSource(path, array_key) as source:
        assert source.header.left_out == tuple(one.name for one in source.left_out)
        return {one.name: one.what for one in source.left_out}


def rebuilt(entry: dict[str, Any]) -> bytes:
    """An entry's bytes, from what the JSON holds of it."""
    return base64.b64decode(entry["header_base64"]) + base64.b64decode(entry["base64"])


# --- Which array is the volume ----------------------------------------------------------------

CT_4D = np.zeros((2, 32, 32, 3), np.int16)
PREVIEW = np.zeros((32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "seen"),
    [
        ({"ct": CT_4D, "preview": PREVIEW}, "ct.npy (int16 2×32×32×3), preview.npy (uint8"),
        ({"a": VOLUME, "b": VOLUME}, "a.npy (int16 5×4×3), b.npy (int16 5×4×3)"),
        ({"a": VOLUME, "b": VOLUME.astype(complex)}, "b.npy (complex128 5×4×3)"),
        ({"a": VOLUME, "b": VOLUME.astype(np.longdouble)}, "b.npy (float128 5×4×3)"),
        ({"a": VOLUME, "b": VOLUME > 9}, "b.npy (bool 5×4×3)"),
    ],
)
def test_more_than_one_volume_is_refused(
    tmp_path: Path, arrays: dict[str, Array], seen: str
) -> None:
    """Two arrays that could be the volume are both named, and none is taken."""
    why = refusal(saved(**arrays), tmp_path / "x.npz")
    assert why and "name one with --array_key" in why
    assert seen in why


@pytest.mark.parametrize("array", [CT_4D, VOLUME.astype(complex)])
def test_a_volume_that_no_shard_can_hold_is_refused(tmp_path: Path, array: Array) -> None:
    """A 4-D or complex array is no volume, with and without its name."""
    for key in (None, "ct"):
        why = refusal(saved(ct=array, note=np.arange(3)), tmp_path / "x.npz", key)
        assert why and "no numeric 3-D array" in why


def test_what_could_be_no_volume_is_no_rival(written: Callable[[bytes], Path]) -> None:
    """Text, times and arrays without any element beside the volume leave it the only one."""
    others = [
        np.full((2, 2, 2), "x"),
        np.zeros((2, 2, 2), "<m8[s]"),
        np.zeros((0, 3, 3)),
        np.eye(3),
    ]
    path = written(saved(volume=VOLUME, **{f"o{i}": one for i, one in enumerate(others)}))
    with NpzSource(path) as source:
        assert source.header.array_key == "volume"
        assert source.left_out == ()
        assert len(source.source_extra()) == 1 + len(others)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_no_flipped_bit_turns_two_volumes_into_one(
    tmp_path: Path, save: Callable[..., None]
) -> None:
    """With any one bit of the file flipped, two volumes stay two: nothing is converted."""
    data = saved(save, first=VOLUME, second=VOLUME + 1)
    for place in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            assert refusal(bytes(flipped), tmp_path / "x.npz"), f"bit {bit} of byte {place}"


@pytest.mark.parametrize(
    "broken",
    [
        ("note.npy", b"no array"),
        ("note.npy", npy(fields(shape=(9, 9)), bytes(3))),
        ("note.npy", npy("{'descr': '<i2'}")),
    ],
)
def test_an_entry_that_cannot_be_read_is_refused(
    written: Callable[[bytes], Path], broken: tuple[str, bytes]
) -> None:
    """It could be the volume; --array_key says that it is not, and then it is left out."""
    path = written(packed(("ct.npy", npy_of(VOLUME)), broken))
    with pytest.raises(SampleError, match=r"cannot be read; name the volume with --array_key"):
        NpzSource(path)
    assert left_out(path, "ct").keys() == {"note.npy"}


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        ({"flag_bits": 1}, "encrypted"),
        ({"compress_type": 14}, "another compression: 14"),
        ({"CRC": 5, "twice": False}, "local header and the zip directory disagree"),
        ({"compress_size": 5000}, "zip file cut short"),
        ({"header_offset": 7}, "no local header"),
        ({"header_offset": 2**40}, "outside its file"),
    ],
)
def test_an_entry_that_is_no_sound_member_is_refused(
    written: Callable[[bytes], Path], lie: dict[str, Any], says: str
) -> None:
    """An encrypted, foreign or contradictory member is refused, or left out by its name."""
    zip64 = "header_offset" in lie
    path = written(packed(("ct.npy", npy_of(VOLUME)), ("note.txt", b"x" * 99), zip64=zip64, **lie))
    with pytest.raises(SampleError, match="cannot be read"):
        NpzSource(path)
    assert says in left_out(path, "ct")["note.txt"]


def test_names_that_stand_there_twice(written: Callable[[bytes], Path]) -> None:
    """Of two entries of one name nobody knows which is meant; the volume's own is refused."""
    ct, note = ("ct.npy", npy_of(VOLUME)), ("note.txt", b"x")
    path = written(packed(ct, note, note))
    with pytest.raises(SampleError, match=r"note\.txt \(its name stands there twice\)"):
        NpzSource(path)
    assert left_out(path, "ct") == {"note.txt": "its name stands there twice"}
    with pytest.raises(SampleError, match="twice"):
        NpzSource(written(packed(ct, ct)), "ct")


def test_bytes_that_are_no_truth_value(tmp_path: Path) -> None:
    """A bool array with bytes above 1 is refused while it is read: a cast would lose them."""
    labels = (np.arange(60) % 30).astype(np.uint8).reshape(5, 4, 3)
    why = refusal(saved(mask=labels.view(bool)), tmp_path / "x.npz")
    assert why and "other bytes than 0 and 1" in why and "seen 29" in why
    assert refusal(saved(mask=labels > 9), tmp_path / "x.npz") is None


# --- Files as programs write them -------------------------------------------------------------


class Stream(io.RawIOBase):
    """A pipe: sizes are known only after the data, and follow them in a data descriptor."""

    def __init__(self) -> None:
        self.data = io.BytesIO()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self.data.write(data)


def streamed(method: int, zip64: bool) -> bytes:
    stream = Stream()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, array in (("volume.npy", VOLUME), ("affine.npy", np.eye(4))):
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            with archive.open(info, "w", force_zip64=zip64) as member:
                member.write(npy_of(array))
    return stream.data.getvalue()


def by_numpy(save: Callable[..., None]) -> bytes:
    stream = Stream()
    save(stream, volume=VOLUME, affine=np.eye(4))
    return stream.data.getvalue()


WRITTEN_BY: dict[str, Callable[[], bytes]] = {
    "savez": lambda: saved(volume=VOLUME, affine=np.eye(4)),
    "savez_compressed": lambda: saved(np.savez_compressed, volume=VOLUME, affine=np.eye(4)),
    "savez into a pipe": lambda: by_numpy(np.savez),
    "savez_compressed into a pipe": lambda: by_numpy(np.savez_compressed),
    **{
        f"method {method}, zip64 {zip64}, into a pipe": functools.partial(streamed, method, zip64)
        for method in (0, 8)
        for zip64 in (False, True)
    },
    "zip64": lambda: packed(
        ("volume.npy", npy_of(VOLUME)), ("affine.npy", npy_of(np.eye(4))), zip64=True
    ),
}


@pytest.mark.parametrize("writer", WRITTEN_BY)
def test_nothing_is_left_out_of_an_ordinary_file(
    written: Callable[[bytes], Path], writer: str
) -> None:
    """However it was zipped, each byte has its place, and the small array travels."""
    path = written(WRITTEN_BY[writer]())
    with NpzSource(path) as source:
        assert source.left_out == ()
        assert [entry["name"] for entry in source.source_extra()] == ["", "affine.npy"]
        assert rebuilt(source.source_extra()[1]) == npy_of(np.eye(4))
        assert np.array_equal(np.concatenate([*source.blocks(100)]), VOLUME.ravel())


def test_zip_on_the_command_line(tmp_path: Path) -> None:
    """What Info-ZIP writes has times and Unix ids beside each member: they are nothing left out."""
    np.save(tmp_path / "volume.npy", VOLUME)
    (tmp_path / "notes.txt").write_text("scanned twice")
    names = [str(tmp_path / name) for name in ("volume.npy", "notes.txt")]
    try:
        subprocess.run(["zip", "-qj", "x.npz", *names], check=True, cwd=tmp_path)
    except FileNotFoundError:
        pytest.skip("zip is not installed")
    assert left_out(tmp_path / "x.npz") == {}


def with_extra_field(kind: int, body: bytes) -> bytes:
    """An NPZ whose members have an extra field, as Info-ZIP writes times."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        info = zipfile.ZipInfo("volume.npy")
        info.extra = kind.to_bytes(2, "little") + len(body).to_bytes(2, "little") + body
        archive.writestr(info, npy_of(VOLUME))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("kind", "size", "loose"),
    [(0x5455, 9, 0), (0x7875, 11, 0), (0x5855, 12, 0), (0x5455, 900, 904), (0xD935, 8, 12)],
)
def test_extra_fields(written: Callable[[bytes], Path], kind: int, size: int, loose: int) -> None:
    """Times and Unix ids say nothing of the data; any other field, or a longer one, is named."""
    found = left_out(written(with_extra_field(kind, bytes(size))))
    twice = 2 * loose  # in the directory, and in the member's own header
    assert found == (
        {"zip-extra-field": f"{twice:,} bytes of extra fields and comments"} if loose else {}
    )


def test_a_members_comment(written: Callable[[bytes], Path]) -> None:
    """It is no content of a member, so it is named."""
    path = written(packed(("volume.npy", npy_of(VOLUME)), comment=b"12345"))  # type: ignore[arg-type]
    assert left_out(path) == {"zip-extra-field": "5 bytes of extra fields and comments"}


# --- Bytes of no member -----------------------------------------------------------------------

PLAIN = saved(volume=VOLUME, affine=np.eye(4))


def between(data: bytes, more: bytes) -> bytes:
    """``data`` with ``more`` before its directory, which is found where it lies then."""
    start = data.rindex(b"PK\x01\x02")
    start = data.rindex(b"PK\x01\x02", 0, start)
    offset = int.from_bytes(data[-6:-2], "little") + len(more)
    return data[:start] + more + data[start:-6] + offset.to_bytes(4, "little") + data[-2:]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"#!junk\n" + PLAIN, {"bytes-before": "7 bytes before the first member"}),
        (PLAIN + b"another file", {"bytes-after": "12 bytes after the end of the zip"}),
        (between(PLAIN, b"x" * 37), {"bytes-between": "37 bytes between the members"}),
        (PLAIN + PLAIN, {"bytes-before": f"{len(PLAIN):,} bytes before the first member"}),
    ],
)
def test_bytes_of_no_member_are_named(
    written: Callable[[bytes], Path], data: bytes, expected: dict[str, str]
) -> None:
    """Before, between and after the members: how many bytes there are, under a fixed name."""
    assert left_out(written(data)) == expected


def test_a_member_that_the_directory_does_not_list(written: Callable[[bytes], Path]) -> None:
    """Its bytes are of no member, whatever they look like."""
    hidden = packed(("volume.npy", npy_of(VOLUME)), ("ct.npy", npy_of(VOLUME)))
    start = hidden.rindex(b"PK\x01\x02")
    end = bytearray(hidden[-22:])
    entry_bytes = hidden.index(b"PK\x05\x06") - start
    end[8] = end[10] = 1
    end[12:16] = (int.from_bytes(end[12:16], "little") - entry_bytes).to_bytes(4, "little")
    path = written(hidden[:start] + bytes(end))
    assert left_out(path).keys() == {"bytes-between"}


def test_a_header_that_says_more(written: Callable[[bytes], Path]) -> None:
    """A comment within the volume's npy header is content too: the header travels verbatim."""
    header = fields() + " # affine: 0.7 0.7 1.5"
    data = npy(header, VOLUME.tobytes())
    with NpzSource(written(packed(("x.npy", data)))) as source:
        assert (source.left_out, source.header_is_plain) == ((), False)
        assert source.raw_header == data[: -VOLUME.nbytes]
    quoted = '{"shape": (5, 4, 3), "descr": "<i2", "fortran_order": False}'
    with NpzSource(written(packed(("x.npy", npy(quoted, VOLUME.tobytes()))))) as source:
        assert source.header_is_plain


def test_extended_attributes(written: Callable[[bytes], Path]) -> None:
    """What a person or program has attached to the file is named, on file systems that have it."""
    path = written(PLAIN)
    try:
        os.setxattr(path, "user.origin", b"scanner 7")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    assert left_out(path) == {"user.origin": "extended attribute, 9 bytes"}


@given(st.randoms(use_true_random=False), st.integers(0, 2**32))
@settings(max_examples=200)
def test_no_byte_is_lost_in_random_damage(draw: random.Random, seed: int) -> None:
    """With bytes put in anywhere a source is refused, or has something left out."""
    data = saved(np.savez_compressed, volume=VOLUME, note=np.arange(5))
    place, size = draw.randrange(len(data) + 1), draw.randrange(1, 40)
    inserted = np.random.default_rng(seed).bytes(size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npz"
        if refusal(data[:place] + inserted + data[place:], path) is None:
            assert left_out(path)


# --- What travels, and what is too large ------------------------------------------------------

BESIDE: dict[str, Any] = {
    "affine": np.array([[0.7, 0, 0, -174.6], [0, 0.7, 0, np.nan], [0, 0, 1.5, 1e-300]]),
    "spacing": np.float64(0.75),
    "crop_bbox": np.array([[0, 480], [3, 9]], ">i4"),
    "names": np.array(["x", "ÿ", "🫁"]),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "metadata": np.array(json.dumps(PROVENANCE).encode()),
    "as_text": np.array(json.dumps(PROVENANCE)),
    "as_bytes": np.frombuffer(json.dumps([1, 2]).encode(), np.uint8),
    "number": np.array(b"5"),
    "records": np.array([(1, 2.5)], [("slice", "<i2"), ("z", "<f4")]),
    "empty": np.zeros((0, 3, 3)),
    "flag": np.bool_(True),
}
RICH = appended(
    saved(np.savez_compressed, volume=VOLUME, **BESIDE),
    b"made by a script",
    dataset_json=json.dumps({"a": [1, None]}).encode(),
    notes_txt=b"\xff\xfenot text",
    nan_json=b'{"a": NaN}',
)


def test_entries_come_back_byte_for_byte(written: Callable[[bytes], Path]) -> None:
    """From header and content each entry is put together again, whatever it is."""
    path = written(RICH)
    with NpzSource(path) as source, zipfile.ZipFile(path) as archive:
        assert source.left_out == ()
        first, *entries = source.source_extra()
        assert (first["name"], rebuilt(first)) == ("", archive.comment)
        assert [entry["name"] for entry in entries] == archive.namelist()[1:]
        for entry in entries:
            assert rebuilt(entry) == archive.read(entry["name"])
            assert tuple(entry) == NAMES


def test_json_is_given_as_json(written: Callable[[bytes], Path]) -> None:
    """Objects and lists in files, bytes or text are JSON; numbers, NaN and pixels are not."""
    with NpzSource(written(RICH)) as source:
        texts = {entry["name"]: entry["json"] for entry in source.source_extra() if entry["json"]}
    assert {name: json.loads(text) for name, text in texts.items()} == {
        "metadata.npy": PROVENANCE,
        "as_text.npy": PROVENANCE,
        "as_bytes.npy": [1, 2],
        "dataset.json": {"a": [1, None]},
    }


def test_what_is_too_large_is_left_out(written: Callable[[bytes], Path]) -> None:
    """A mask of 5 MiB, and what does not fit the first MiB in the directory's order."""
    path = written(
        saved(
            volume=VOLUME,
            mask=np.zeros((5, 2**20), bool),
            first=np.zeros(MAX_EXTRA_BYTES - 10, np.uint8),
            second=np.zeros(11, np.uint8),
            third=np.zeros(10, np.uint8),
        )
    )
    assert left_out(path) == {
        "mask.npy": "array of bool 5×1048576, 5.0 MiB",
        "second.npy": "array of uint8 11, 11 bytes",
    }
    with NpzSource(path) as source:
        names = [entry["name"] for entry in source.source_extra()]
    assert names == ["", "first.npy", "third.npy"]


def test_a_bomb_takes_no_memory(written: Callable[[bytes], Path]) -> None:
    """An entry that inflates to more than it says is read no further than that."""
    bomb = packed(("ct.npy", npy_of(VOLUME)), ("note.bin", bytes(2**26)), method=8, file_size=100)
    with NpzSource(written(bomb)) as source, pytest.raises(SampleError, match="longer"):
        source.source_extra()


def test_pickled_objects_are_left_out_unread(written: Callable[[bytes], Path]) -> None:
    """An array of objects is named; nothing in it runs."""
    path = written(b"")
    marker = path.with_name("marker")
    objects = np.array([RunsOnLoad(marker), None], object)
    path.write_bytes(saved(volume=VOLUME, history=objects))
    assert left_out(path)["history.npy"].startswith("pickled Python objects")
    with NpzSource(path) as source:
        assert [entry["name"] for entry in source.source_extra()] == [""]
    assert not marker.exists()


def test_a_wrong_crc_of_a_small_entry(tmp_path: Path) -> None:
    """A damaged entry fails the sample: it would be gone with its source."""
    data = saved(volume=VOLUME, affine=np.eye(4))
    place = data.rindex(np.float64(1).tobytes()) + 3
    why = refusal(data[:place] + b"\1" + data[place + 1 :], tmp_path / "x.npz")
    assert why and "CRC-32 wrong" in why and "affine.npy" in why


def test_an_open_file_is_read_whatever_its_name_is_now(written: Callable[[bytes], Path]) -> None:
    """A descriptor is enough, stays open, and the path is for messages only."""
    path = written(RICH)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        path.rename(path.with_name("aside"))
        with NpzSource(path, descriptor=descriptor) as source:
            assert np.array_equal(np.concatenate([*source.blocks(100)]), VOLUME.ravel())
            assert len(source.source_extra()) == 1 + len(BESIDE) + 3
        os.fstat(descriptor)
    finally:
        os.close(descriptor)


# --- In shards, and back ----------------------------------------------------------------------


def mixed(made: SyntheticCtRate, rich: int) -> SyntheticCtRate:
    """All sources hold nothing but their volume; of the last ones, ``rich`` hold more."""
    for key in made.keys:
        made.sources[key].write_bytes(saved(volume=VOLUME))
    for key in made.keys[len(made.keys) - rich :]:
        made.sources[key].write_bytes(RICH)
    return made


def extra_of(converted: Converted, key: str) -> Extra:
    found: Extra = strict_json(read_dataset(converted.out)[key].members["json"])["source_extra"]
    return found


@pytest.mark.parametrize("layout", ["webdataset", "ctclip"])
def test_entries_travel_and_come_back(make_ctrate: Make, tmp_path: Path, layout: str) -> None:
    """In both layouts the JSON holds what the source does, and the reader gives it as arrays."""
    made = mixed(make_ctrate(3), rich=1)
    dtype = "float16" if layout == "ctclip" else "auto"
    converted = convert_here(made, tmp_path / "out", layout=layout, dtype=dtype)
    key = made.keys[-1]
    with NpzSource(made.sources[key]) as source:
        assert extra_of(converted, key) == source.source_extra()
    volumes = Volumes(converted.out)
    assert volumes[made.keys[0]].source_extra == {}
    extra = volumes[key].source_extra
    for name in ("affine", "spacing", "crop_bbox", "names", "fortran", "empty", "flag", "number"):
        expected = np.asarray(BESIDE[name])
        assert extra[name].dtype == expected.dtype and extra[name].shape == expected.shape
        assert extra[name].tobytes() == expected.tobytes(), name
    assert extra["records"]["z"].tolist() == [2.5]
    assert extra["metadata"] == extra["as_text"] == PROVENANCE
    assert extra["dataset.json"] == {"a": [1, None]}
    assert extra["notes.txt"] == b"\xff\xfenot text"
    assert extra[""] == b"made by a script"


def test_public_npz_keep_their_provenance(make_ctrate: Make, tmp_path: Path) -> None:
    """The `metadata` entry of the kind that is public comes back as what its JSON says."""
    made = make_ctrate(2, kinds=("volume",))
    out = convert_here(made, tmp_path / "out").out
    for key, sample in Volumes(out).items():
        with np.load(made.sources[key]) as archive:
            assert sample.source_extra == {"metadata": json.loads(archive["metadata"].item())}


@pytest.mark.parametrize("rich", [1, 7])
def test_every_sample_has_one_type_for_other_readers(
    make_ctrate: Make, tmp_path: Path, rich: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hugging Face takes samples with and without entries, in whatever order they come."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip(
        "datasets", reason="Hugging Face datasets cannot be imported", exc_type=ImportError
    )
    made = mixed(make_ctrate(8), rich)
    converted = convert_here(made, tmp_path / "out", samples_per_shard=4)
    where = {"split": "train", "cache_dir": str(tmp_path / "hf")}
    loaded = datasets.load_dataset(str(converted.out), **where)
    assert {one["__key__"]: one["json"]["source_extra"] for one in loaded} == {
        key: extra_of(converted, key) for key in made.keys
    }


def test_webdataset_reads_them(make_ctrate: Make, tmp_path: Path) -> None:
    """Plain webdataset decodes the field with the rest of the JSON."""
    webdataset = pytest.importorskip("webdataset")
    made = mixed(make_ctrate(3), rich=1)
    converted = convert_here(made, tmp_path / "out")
    paths = [str(path) for path in converted.out.glob("*.tar")]
    for sample in webdataset.WebDataset(paths, shardshuffle=False).decode():
        assert sample["json"]["source_extra"] == extra_of(converted, sample["__key__"])
        assert same_voxels(sample["volume.npy"], VOLUME)


def test_a_damaged_entry_in_a_shard(make_ctrate: Make, tmp_path: Path) -> None:
    """An array that is not what its header says is reported as damage of its shard."""
    made = mixed(make_ctrate(2), rich=1)
    out = convert_here(made, tmp_path / "out").out
    shard = out / "shard-000000.tar"
    head = base64.b64encode(npy_of(np.eye(4))[:128])
    other = base64.b64encode(header_bytes(np.dtype("<f8"), (4, 4, 10**12)))
    data = shard.read_bytes()
    affine = base64.b64encode(npy_of(BESIDE["affine"])[:128])
    assert data.count(affine) == 1 and len(head) == len(other) == len(affine)
    shard.write_bytes(data.replace(affine, other))
    with pytest.raises(DamageError, match="damaged source_extra"):
        _ = Volumes(out)[made.keys[-1]].source_extra


def test_the_plan_counts_them(make_ctrate: Make, tmp_path: Path) -> None:
    """A shard takes the space that the plan promised, with all that travels in it."""
    made = make_ctrate(1, kinds=("data",))
    notes = {f"note{number}": np.arange(40 + number) for number in range(40)}
    made.sources[made.keys[0]].write_bytes(saved(volume=VOLUME, **notes))
    converted = convert_here(made, tmp_path / "out")
    promised = converted.planned().estimated_output_bytes
    assert converted.dataset.shard(0).stat().st_size == promised
    header = converted.record().converted[0].source_header
    members = read_dataset(converted.out)[made.keys[0]].members
    npy_header = strict_json(members["json"])["source_header_base64"]
    extra_text = json.dumps(extra_of(converted, made.keys[0]))
    assert header.extra_bytes == len(extra_text) - 2 + len(npy_header)


def test_the_plan_names_what_no_shard_will_hold(make_ctrate: Make, tmp_path: Path) -> None:
    """Planning counts the volumes, names their entries and says that their sources are kept."""
    made = make_ctrate(4, kinds=("data",))
    first, second, *_ = made.keys
    mask = np.zeros((5, 2**20), bool)
    made.sources[first].write_bytes(saved(np.savez_compressed, volume=VOLUME, mask=mask))
    made.sources[second].write_bytes(b"before" + saved(volume=VOLUME))
    planned = run_here(*plan_words(made, tmp_path / "out", "--json"))
    assert planned.code == ExitCode.DONE
    [warning] = [one for one in planned.json()["warnings"] if "no shard will hold" in one]
    assert warning.startswith("2 volumes have entries")
    assert "their sources are kept unless --discard_members names them" in warning
    assert f"{first} (mask.npy), {second} (bytes-before)" in warning


def test_two_volumes_stop_only_themselves(make_ctrate: Make, tmp_path: Path) -> None:
    """A 4-D CT beside a preview fails as a sample, and says how to go on."""
    made = make_ctrate(3)
    key = made.keys[1]
    made.sources[key].write_bytes(saved(ct=CT_4D, preview=PREVIEW))
    done = run_here(*convert_words(made, tmp_path / "out"))
    assert done.code == ExitCode.SAMPLES_FAILED
    assert f"{key}: several arrays of 3-D or more; name one with --array_key" in done.text
    assert read_dataset(tmp_path / "out").keys() == set(made.keys) - {key}

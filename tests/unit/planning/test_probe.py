"""A plan's probe predicts what the shards become, the same every time, and never in the way."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctrate_convert.errors import DamageError
from ctrate_convert.planning import make as planning
from ctrate_convert.planning.intensity import Scale, intensity_notes
from ctrate_convert.planning.make import load_plans, make_plan
from ctrate_convert.planning.probe import choice as probe_sample
from ctrate_convert.planning.probe import part as probe_part
from ctrate_convert.planning.probe import trials as probe
from ctrate_convert.planning.probe.choice import Volume, choose
from ctrate_convert.planning.probe.part import cut_part
from ctrate_convert.planning.samples.lines import Form
from ctrate_convert.shards.shard import convert_shard
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.plan import Plan, Probe, ProbeRow
from ctrate_convert.synthetic import SyntheticCtRate, chest_phantom, write_synthetic_ctrate
from tests.conftest import REAL_CT_VARIABLE
from tests.support import (
    Array,
    Finished,
    convert_here,
    convert_words,
    load_original,
    plan_words,
    run_here,
    settings_for,
)

Make = Callable[..., SyntheticCtRate]
PHANTOM_SHAPE = (144, 144, 64)


def origins() -> list[Array]:
    """Real chests where they are at hand, else synthetic ones."""
    beside = Path(__file__).resolve().parents[4] / "shared" / "data" / "real-ct"
    folder = Path(os.environ.get(REAL_CT_VARIABLE, beside))
    real: list[Array] = [np.load(path)["data"] for path in sorted(folder.glob("*.npz"))]
    return real or [chest_phantom(PHANTOM_SHAPE, np.random.default_rng(n)) for n in range(2)]


def cut(origin: Array, shape: tuple[int, int, int], rng: np.random.Generator) -> Array:
    """A piece of ``origin`` with noise of its own, as no two scanners have the same."""
    planes = origin.shape[2]
    there_and_back = np.concatenate([np.arange(planes), np.arange(planes - 2, 0, -1)])
    order = np.resize(np.roll(there_and_back, -int(rng.integers(planes))), shape[2])
    row, column = (int(rng.integers(origin.shape[axis] - shape[axis] + 1)) for axis in (0, 1))
    piece = origin[row : row + shape[0], column : column + shape[1]][:, :, order]
    level = int(rng.integers(1, 20))
    noise = rng.integers(-level, level + 1, piece.shape, np.int16)
    return np.ascontiguousarray(piece + noise * (piece > -1024))


def save(path: Path, kind: str, hounsfield: Array) -> None:
    """``hounsfield`` in the way that the synthetic set's ``kind`` stands for."""
    if kind == "arr_0":
        scaled = np.clip(hounsfield.transpose(2, 0, 1).astype(np.float32) / 1000, -1, 1)
        np.savez_compressed(path, arr_0=np.ascontiguousarray(scaled))
    elif kind == "volume":
        np.savez_compressed(path, volume=hounsfield)
    elif kind == "data":
        np.savez(path, data=hounsfield + np.int16(1024))
    else:
        np.savez_compressed(path, arr=np.asfortranarray(hounsfield))


def plan_of(made: SyntheticCtRate, out: Path, **settings: Any) -> Plan:
    """The plan, probed unless told otherwise."""
    report = make_plan(Dataset(out), settings_for(made, **{"probe": None, **settings}))
    assert report.plan is not None
    return report.plan


def probed(plan: Plan) -> Probe:
    assert plan.probe is not None
    return plan.probe


def row(plan: Plan, encoding: str, dtype: str, step: float | None = None) -> ProbeRow:
    wanted = (encoding, dtype, step)
    rows = probed(plan).rows
    return next(one for one in rows if (one.encoding, one.dtype, one.step) == wanted)


def converted_bytes(out: Path) -> int:
    """The size of all tars, once everything is converted."""
    dataset = Dataset(out)
    for plan in load_plans(dataset):
        for shard in plan.shards:
            record = convert_shard(dataset, plan, shard, "test", lambda *_: None).record
            assert not record.failed
    return sum(path.stat().st_size for path in out.glob("*.tar"))


# --- prediction ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> SyntheticCtRate:
    """200 volumes of four kinds and four sizes, each with a noise of its own."""
    folder = tmp_path_factory.mktemp("mixed")
    made = write_synthetic_ctrate(folder, samples=200, shape=(4, 4, 4), layout="flat")
    chests = origins()
    shapes = [(28, 32, 24), (40, 40, 16), (48, 40, 20), (24, 28, 40)]
    for number, (key, path) in enumerate(made.sources.items()):
        rng = np.random.default_rng(number)
        chest, shape = chests[rng.integers(len(chests))], shapes[rng.integers(len(shapes))]
        save(path, made.kinds[key], cut(chest, shape, rng))
    return made


@pytest.mark.parametrize(
    "settings",
    [
        {"encoding": "npy.gz", "max_error": 0.001},  # some pieces are all air
        {"encoding": "b2nd", "dtype": "int16", "step": 0.001},
    ],
    ids=["npy.gz", "b2nd"],
)
def test_output_of_a_mixed_set_is_predicted_within_five_percent(
    settings: dict[str, Any], mixed: SyntheticCtRate, tmp_path: Path
) -> None:
    """A few probed volumes stand for 200, whatever their kinds, sizes and noise."""
    plan = plan_of(mixed, tmp_path, **settings)
    promised = plan.estimate.output_bytes
    assert probed(plan).volumes <= 16
    assert promised == probed(plan).chosen.output_bytes
    assert promised == sum(shard.estimated_output_bytes for shard in plan.shards)
    assert promised == pytest.approx(converted_bytes(tmp_path), rel=0.05)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_part_of_a_large_volume_compresses_like_the_whole(
    order: Any, dtype: Any, tmp_path: Path, make_ctrate: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Boxes from all over a volume predict its frame, and hold no voxel that it has not."""
    made = make_ctrate(1, kinds=("volume",))
    (source,) = made.sources.values()
    shape, rng, chest = (320, 192, 80), np.random.default_rng(1), origins()[-1]
    real = chest.shape[0] >= shape[0]
    hounsfield = cut(chest, shape, rng) if real else chest_phantom(shape, rng)
    values = hounsfield if dtype is np.int16 else hounsfield.astype(dtype) / dtype(1000)
    np.savez(source, data=np.asarray(values, order=order))
    for module in (probe, probe_part, probe_sample):
        monkeypatch.setattr(module, "PART_BYTES", values.nbytes // 2)
    part = cut_part(source, None, tmp_path / "part.npz")
    voxels = np.load(part.path)["part"]
    assert voxels.flags.f_contiguous == (order == "F")
    assert voxels.nbytes <= values.nbytes // 2
    assert np.isin(voxels, values).all()
    plan = plan_of(made, tmp_path / "out", encoding="b2nd")
    within = pytest.approx(converted_bytes(tmp_path / "out"), rel=0.05 if real else 0.06)
    assert plan.estimate.output_bytes == within


def test_every_encoding_is_shown_with_the_array_types_that_may_do(
    ctrate: SyntheticCtRate, tmp_path: Path
) -> None:
    """Floats of HU/1000 get a step; what fails on a probed volume is not offered."""
    plan = plan_of(ctrate, tmp_path)
    kinds = [("auto", None), ("float16", None), ("int16", 0.001)]
    assert {(one.encoding, one.dtype, one.step) for one in probed(plan).rows} == {
        (encoding, *kind) for encoding in ("npy", "npy.gz", "b2nd") for kind in kinds
    }
    assert probed(plan).chosen == row(plan, "npy", "auto")
    assert sum(one.advised for one in probed(plan).rows) == 1
    assert probed(plan).volumes == 8
    assert sum(probed(plan).intensities.values()) == 8


def test_float16_saves_nothing_on_integers_and_is_not_exact(
    make_ctrate: Make, tmp_path: Path
) -> None:
    """Two-byte integers are as large as float16; raw values past 2048 lose by it."""
    plan = plan_of(make_ctrate(4, kinds=("data",), shape=(24, 24, 12)), tmp_path)
    assert row(plan, "npy", "float16").output_bytes == row(plan, "npy", "auto").output_bytes
    assert row(plan, "npy", "float16").max_integer_error >= 1
    assert row(plan, "npy", "auto").max_integer_error == 0
    assert not any(one.advised for one in probed(plan).rows if one.dtype == "float16")


def test_errors_of_normalised_floats_are_in_hounsfield_units(
    make_ctrate: Make, tmp_path: Path
) -> None:
    """HU/1000 in float16 is within a quarter of a unit; with a step of one unit it is exact."""
    plan = plan_of(make_ctrate(4, kinds=("arr_0",), shape=(24, 24, 12)), tmp_path)
    assert 0.05 < row(plan, "npy", "float16").max_error_hu <= 0.25
    assert row(plan, "npy", "int16", 0.001).max_error_hu < 0.001


def test_a_way_that_fails_is_told_where_it_is_the_plans_own(
    make_ctrate: Make, tmp_path: Path
) -> None:
    """HU/1000 without a step would become three integers: the plan says so before it runs."""
    plan = plan_of(make_ctrate(3, kinds=("arr_0",), shape=(24, 24, 12)), tmp_path, dtype="int16")
    assert probed(plan).chosen.failed_volumes == 3
    assert "precision loss past the bound" in probed(plan).chosen.failure
    assert not probed(plan).chosen.advised
    assert row(plan, "npy", "auto").failure == ""


# --- the same every time, and never in the way -----------------------------------------------


def test_a_probe_gives_the_same_numbers_every_time_but_for_seconds(
    ctrate: SyntheticCtRate, tmp_path: Path
) -> None:
    """So the shards are cut alike, also where their predicted size decides."""
    size = {"encoding": "b2nd", "shard_size_gb": 2e-6}
    plans = [plan_of(ctrate, tmp_path / name, **size) for name in ("one", "two")]
    without_seconds = [
        [one.model_copy(update={"cpu_s": 0.0, "advised": False}) for one in probed(plan).rows]
        for plan in plans
    ]
    assert without_seconds[0] == without_seconds[1]
    assert plans[0].shards == plans[1].shards
    assert len(plans[0].shards) > 1


def test_shards_are_the_same_bytes_with_and_without_a_probe(
    ctrate: SyntheticCtRate, tmp_path: Path
) -> None:
    """What was predicted has no part in what is written."""
    shards = []
    for volumes in (None, 0):
        out = tmp_path / str(volumes)
        plan_of(ctrate, out, probe=volumes, encoding="b2nd")
        converted_bytes(out)
        shards.append([path.read_bytes() for path in sorted(out.glob("*.tar"))])
    assert shards[0] == shards[1]


def test_nothing_is_probed_where_nothing_is_new_or_none_is_wanted(
    ctrate: SyntheticCtRate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command again is as quick as it was without probes."""
    plan_of(ctrate, tmp_path / "out")

    def fail(*_: object) -> None:
        raise AssertionError("probed")

    monkeypatch.setattr(planning, "probe", fail)
    again = make_plan(Dataset(tmp_path / "out"), settings_for(ctrate, probe=None))
    assert again.plan is None
    assert plan_of(ctrate, tmp_path / "other", probe=0).probe is None


def test_a_probe_leaves_nothing_behind(ctrate: SyntheticCtRate, tmp_path: Path) -> None:
    """Its scratch files are gone, and OUT holds the plan alone."""
    out = tmp_path / "out"
    plan_of(ctrate, out)
    assert [path.name for path in (out / ".run" / "plans").iterdir()] == ["0000"]
    assert [path.name for path in out.iterdir()] == [".run"]


def test_a_probe_that_cannot_write_does_not_stop_the_plan(
    ctrate: SyntheticCtRate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No space for scratch files: the plan stands, with sizes as if nothing were compressed."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(probe, "PartialFile", full)
    report = make_plan(Dataset(tmp_path), settings_for(ctrate, probe=None, encoding="b2nd"))
    assert report.plan is not None
    assert report.plan.probe is None
    assert any("no volume could be probed" in warning for warning in report.warnings)


def test_a_broken_volume_is_counted_and_costs_only_itself(
    make_ctrate: Make, tmp_path: Path
) -> None:
    """The others are probed, and it is named with the reason."""
    made = make_ctrate(8, faults=("corrupt",))
    (broken,) = made.faults
    done = run_here(*plan_words(made, tmp_path, "--details"))
    (plan,) = load_plans(Dataset(tmp_path))
    assert (probed(plan).volumes, probed(plan).unreadable) == (7, 1)
    assert "tried on 7 volumes of 8; 1 could not be converted" in done.stdout
    assert f"promises are made without them: {broken}: CRC-32 wrong" in done.stdout


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_an_error_that_nobody_foresaw_costs_one_way_to_store_one_volume(
    ctrate: SyntheticCtRate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blosc2 that fails stops no plan: b2nd is not offered, and the error is told."""
    monkeypatch.setattr("blosc2.empty", raising(TypeError("a fault of its own")))
    done = run_here(*plan_words(ctrate, tmp_path, "--details"))
    assert done.code == 0
    assert " as b2nd auto: unexpected TypeError: a fault of its own" in done.stdout
    assert "tried on 8 volumes of 8:" in done.stdout
    table = done.stdout[done.stdout.index("encoding") :]
    assert "npy.gz" in table
    assert "b2nd" not in table


def test_a_volume_that_fails_in_every_way_is_counted_and_told(
    ctrate: SyntheticCtRate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its shard does not read back: the plan stands, as if nothing could be compressed."""
    damage = DamageError("shard does not read back", where="probe.tar")
    monkeypatch.setattr(probe, "read_shard", raising(damage))
    done = run_here(*plan_words(ctrate, tmp_path, "--details"))
    assert done.code == 0
    assert "8 of the volumes chosen for the probe could not be converted" in done.stdout
    assert "unexpected DamageError: shard does not read back" in done.stdout
    assert load_plans(Dataset(tmp_path))[0].probe is None


def test_a_part_that_cannot_be_cut_costs_its_volume_only(
    ctrate: SyntheticCtRate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory for one large volume: the others are probed all the same."""
    largest = max(ctrate.sources, key=lambda key: load_original(ctrate.sources[key]).nbytes)
    size_bytes = load_original(ctrate.sources[largest]).nbytes
    monkeypatch.setattr(probe, "PART_BYTES", size_bytes - 1)
    monkeypatch.setattr(probe, "cut_part", raising(MemoryError("no memory")))
    plan = plan_of(ctrate, tmp_path)
    assert probed(plan).unreadable >= 1
    assert probed(plan).volumes == 8 - probed(plan).unreadable > 0


# --- the sample ------------------------------------------------------------------------------


def volume(number: int, dtype: str, compression: Any, side: int) -> Volume:
    form = Form(dtype, deflated=compression == "deflated", fortran_order=False)
    return Volume.of(f"train_{number}_a_1", form, side**3, file_bytes=1000 + number)


def test_the_sample_has_some_of_every_kind_and_none_twice() -> None:
    """However rare a kind is; where there is more, more are taken."""
    population = [volume(n, "<f4", "deflated", 64) for n in range(100)]
    population += [volume(n, "<i2", "stored", 64) for n in range(100, 110)]
    population += [volume(110, "<i2", "deflated", 400)]
    chosen = choose(population, 8)
    assert chosen == choose(population[::-1], 8)
    assert len({one.key for one in chosen}) == 8
    assert {one.stratum for one in chosen[:3]} == {one.stratum for one in population}
    assert len(choose(population, 1000)) == len(population)
    assert 3 <= len(choose(population, None)) <= 16


def test_a_few_seconds_worth_is_fewer_volumes_where_they_are_larger() -> None:
    """Of volumes of a gibibyte three are enough, and one is never too many."""
    gibibytes = [volume(n, "<i2", "stored", 812) for n in range(50)]
    assert len(choose(gibibytes, None)) == 3
    assert len(choose([dataclasses.replace(gibibytes[0], voxels=2**40)], None)) == 1


# --- what the voxels are ---------------------------------------------------------------------


def with_metal(hounsfield: Array) -> Array:
    """A prosthesis in the middle, and what its streaks and the table's padding leave outside."""
    values = hounsfield.astype(np.float32)
    z, y, x = (size // 2 for size in values.shape)
    values[z : z + 3, y : y + 2, x : x + 2] = np.array([3071, 8000, 30000])[:, None, None]
    values[0, 0, :3] = -8192
    return values


def noise(shape: tuple[int, int, int]) -> Array:
    return np.random.default_rng(5).standard_normal(shape, np.float32)


SCALES: dict[str, tuple[str, Callable[[Array], Array]]] = {
    "HU": ("hu", lambda hu: hu),
    "HU as floats": ("hu", lambda hu: hu.astype(np.float32)),
    "HU as floats, metal": ("hu", with_metal),
    "HU, padded": ("hu", lambda hu: np.where(hu == -1024, np.int16(-8192), hu)),
    "raw, 1024": ("raw-1024", lambda hu: hu + np.int16(1024)),
    "raw, 8192": ("raw-8192", lambda hu: hu + np.int16(8192)),
    "raw, 8192, floats": ("raw-8192", lambda hu: hu.astype(np.float32) + 8192),
    "HU/1000, clipped": ("normalised", lambda hu: np.clip(hu / np.float32(1000), -1, 1)),
    "HU/1000": ("normalised", lambda hu: hu / np.float32(1000)),
    "HU/1000, metal": ("normalised", lambda hu: with_metal(hu) / np.float32(1000)),
    "HU/1000, metal, doubles": ("normalised", lambda hu: with_metal(hu).astype(float) / 1000),
    "constant": ("unknown", np.zeros_like),
    "constant floats": ("unknown", lambda hu: np.full(hu.shape, -1, np.float32)),
    "a mask": ("unknown", lambda hu: (hu > -500).astype(np.int16)),
    "noise around 0": ("unknown", lambda hu: noise(hu.shape)),
    "noise, wide": ("unknown", lambda hu: 30 * noise(hu.shape)),
    "noise, integers": ("unknown", lambda hu: (50 * noise(hu.shape)).astype(np.int16)),
    "body without air, floats": ("unknown", lambda hu: 40 + 14 * noise(hu.shape)),
}


def recorded_intensity(made: SyntheticCtRate, values: Array, out: Path) -> str:
    """What a conversion says of ``values``, the one volume of ``made``, however coarse."""
    (source,) = made.sources.values()
    np.savez(source, data=values)
    (sample,) = convert_here(made, out, max_error=8.0).record().converted
    return sample.array.intensity


@pytest.mark.parametrize("kind", SCALES)
def test_the_voxels_tell_their_scale(kind: str, make_ctrate: Make, tmp_path: Path) -> None:
    """Padding, clipping, metal and the array's type do not hide it; what is no chest is unknown."""
    expected, made_of = SCALES[kind]
    chest = chest_phantom((64, 64, 48), np.random.default_rng(2))
    made = make_ctrate(1, kinds=("data",))
    assert recorded_intensity(made, made_of(chest), tmp_path / "out") == expected


def test_real_volumes_are_told_for_what_they_are(
    real_ct: Path, make_ctrate: Make, tmp_path: Path
) -> None:
    """Those at hand are in Hounsfield units; in other units they would be told for these."""
    made = make_ctrate(1, kinds=("data",))
    for path in sorted(real_ct.glob("*.npz")):
        hounsfield = load_original(path)
        for kind, (expected, made_of) in SCALES.items():
            if "HU" in kind or "raw" in kind:
                out = tmp_path / f"{path.stem} {kind.replace('/', ' over ')}"
                seen = recorded_intensity(made, made_of(hounsfield), out)
                assert seen == expected, (path.name, kind)


def test_errors_of_unclipped_floats_are_in_hounsfield_units(
    make_ctrate: Make, tmp_path: Path
) -> None:
    """HU/1000 with metal loses whole units in float16: it is not advised, and a step is."""
    made = make_ctrate(1, kinds=("arr_0",))
    (source,) = made.sources.values()
    chest = chest_phantom((64, 64, 48), np.random.default_rng(2))
    np.savez(source, arr_0=with_metal(chest) / np.float32(1000))
    plan = plan_of(made, tmp_path / "out")
    assert probed(plan).intensities == {"normalised": 1}
    assert 0.5 < row(plan, "npy", "float16").max_error_hu < 8
    (advised,) = (one for one in probed(plan).rows if one.advised)
    assert (advised.dtype, advised.step) == ("int16", 0.001)


@pytest.mark.parametrize(
    ("scales", "notes"),
    [
        ([("hu", "0"), ("hu", "")], []),
        ([("hu", "-8192")], ["do not apply RescaleIntercept again: the table has -8192"]),
        ([("normalised", "-1024")], ["do not apply RescaleIntercept again"]),
        ([("raw-1024", "-1024")], ["apply RescaleIntercept to get Hounsfield units"]),
        ([("raw-1024", "-8192")], ["RescaleIntercept is not the one that the voxels show"]),
        (
            [("hu", "0"), ("raw-8192", "-8192"), ("unknown", "-1024")],
            ["the set is mixed: 1 volume (k0) in Hounsfield units; 1 volume (k1)", "apply"],
        ),
    ],
)
def test_notes_tell_whether_the_intercept_may_be_applied(
    scales: list[tuple[Any, str]], notes: list[str]
) -> None:
    """By the voxels, not by the table."""
    found = intensity_notes(
        Scale(f"k{number}", intensity, intercept)
        for number, (intensity, intercept) in enumerate(scales)
    )
    assert len(found) == len(notes)
    assert all(note.startswith(start) for note, start in zip(found, notes, strict=True))


def test_a_mixed_set_is_told_by_plan_and_by_verify(make_ctrate: Make, tmp_path: Path) -> None:
    """Before anything is converted, from the probed volumes; after it, from every record."""
    made = make_ctrate(8, shape=(32, 32, 16))
    out = tmp_path / "out"
    planned = run_here(*plan_words(made, out))
    assert "Note: the set is mixed" in planned.text
    assert "(of 8 probed volumes)" in planned.text
    assert "do not apply RescaleIntercept again" in planned.text
    assert run_here("run", out, "--num_workers", 2).code == 0
    verified = run_here("verify", out)
    assert verified.code == 0
    assert "Note: the set is mixed" in verified.text
    assert "apply RescaleIntercept to get Hounsfield units: 2 volumes" in verified.text


# --- the command line ------------------------------------------------------------------------


def test_plan_prints_the_table_and_what_to_choose(
    cli: Callable[..., Finished], ctrate: SyntheticCtRate, tmp_path: Path
) -> None:
    """The plan's own way is marked, and how to ask for a better one is told."""
    done = cli(*plan_words(ctrate, tmp_path, "--details"))
    assert done.code == 0
    assert "tried on 8 volumes of 8" in done.stdout
    assert "→ is this plan: --encoding npy --dtype auto." in done.stdout
    assert "+ is what would be chosen: --encoding " in done.stdout
    assert "float16 saves nothing where the source is integers" in done.stdout
    marks = [line[0] for line in done.stdout.splitlines() if "npy" in line or "b2nd" in line]
    assert marks.count("→") == 2


def test_json_has_every_row(ctrate: SyntheticCtRate, tmp_path: Path) -> None:
    """With ratio, speed, hours and peak, and the cores that they are for."""
    rows = run_here(*plan_words(ctrate, tmp_path, "--json", "--encoding", "b2nd")).json()
    (chosen,) = (one for one in rows["encodings"] if one["chosen"])
    assert chosen["options"] == "--encoding b2nd --dtype auto"
    assert chosen["output_bytes"] == rows["plan"]["estimate"]["output_bytes"]
    assert chosen["peak_extra_bytes"] >= chosen["output_bytes"]
    assert chosen["mb_per_s"] > 0
    assert chosen["num_workers"] == len(os.sched_getaffinity(0))
    assert chosen["peak_extra_bytes"] == rows["peak_extra_bytes"]


def test_time_and_peak_are_promised_for_the_workers_asked_for(
    ctrate: SyntheticCtRate, tmp_path: Path
) -> None:
    """Whatever machine plans; of more workers than shards some find no work."""
    words = ["--encoding", "b2nd", "--samples_per_shard", 2, "--num_workers"]
    plans = {
        workers: run_here(*plan_words(ctrate, tmp_path / str(workers), *words, workers, "--json"))
        for workers in (1, 3, 100)
    }
    chosen = {
        workers: next(one for one in done.json()["encodings"] if one["chosen"])
        for workers, done in plans.items()
    }
    assert [one["num_workers"] for one in chosen.values()] == [1, 3, 100]
    assert [one["busy_workers"] for one in chosen.values()] == [1, 3, 4]
    for workers, one in chosen.items():
        (plan,) = load_plans(Dataset(tmp_path / str(workers)))
        assert one["hours"] == probed(plan).chosen.cpu_s / one["busy_workers"] / 3600
        assert one["peak_extra_bytes"] == plans[workers].json()["peak_extra_bytes"]
    peaks = [one["peak_extra_bytes"] for one in chosen.values()]
    assert peaks == sorted(set(peaks))  # a scratch file a worker
    told = run_here(*plan_words(ctrate, tmp_path / "told", *words, 100, "--details"))
    assert "more at the peak with 4 workers" in told.stdout
    assert "time, 4 workers" in " ".join(told.stdout.split())
    assert "--num_workers 100, of which 4 find a shard" in told.stdout


def test_convert_prints_it_once(ctrate: SyntheticCtRate, tmp_path: Path) -> None:
    """The same command again has nothing to plan, and with ``--probe 0`` nothing is advised."""
    words = convert_words(ctrate, tmp_path / "one")
    assert "+ is what would be chosen" in run_here(*words).text
    assert "would be chosen" not in run_here(*words).text
    unprobed = run_here(*convert_words(ctrate, tmp_path / "two", "--probe", 0)).text
    assert "would be chosen" not in unprobed
    assert "not known without a probe" in unprobed

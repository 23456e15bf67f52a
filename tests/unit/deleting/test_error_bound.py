"""Volumes that a step or a type would destroy fail as samples; those with metal in them do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctrate_convert.errors import ExitCode
from ctrate_convert.formats.measured import _rounded_up
from ctrate_convert.planning.make import load_plans
from ctrate_convert.shards import second_look
from ctrate_convert.sources.kinds import open_source
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.record import ShardRecord
from ctrate_convert.synthetic import SyntheticCtRate, write_synthetic_ctrate
from ctrate_convert.synthetic.phantom import chest_phantom
from tests.support import DELETE, Array, convert_here, convert_words, plan_words, run_cli

Make = Callable[..., SyntheticCtRate]

SHAPE = (24, 20, 16)
LOSS = "precision loss past the bound: seen "
FLAT = "precision loss past the bound, all voxels become one value: seen values from "


def chest(dtype: str = "float32", scale: float = 1.0, offset: float = 0.0) -> Array:
    """HU between digits, times ``scale``; the corners are air, not padding."""
    hu = chest_phantom(SHAPE, np.random.default_rng(4), padding_hu=-1000).astype(np.float64)
    noise = np.random.default_rng(5).uniform(-0.5, 0.5, SHAPE) if dtype[0] == "f" else 0
    values: Array = ((hu + offset + noise) * scale).astype(dtype)
    return values


def changed(values: Array, places: Mapping[int, float]) -> Array:
    """``values`` with some of them replaced."""
    values = values.copy()
    for place, value in places.items():
        values.reshape(-1)[place] = value
    return values


NOISE = np.random.default_rng(6).normal(size=SHAPE)
METAL = {1000: 8000.0, 1001: 8001.0, 3000: 7990.0}

FLOAT16: dict[str, tuple[Array, str]] = {
    "HU": (chest(), ""),
    "HU/1000": (chest(scale=0.001), ""),
    "HU/1000, float64": (chest("float64", 0.001), ""),
    "HU/1000, big-endian": (chest(">f4", 0.001), ""),
    "HU, float16": (chest("float16"), ""),
    "HU, metal": (changed(chest(), METAL), ""),
    "HU, more metal": (changed(chest(), {1000: 30000.0, 4000: 30008.0}), ""),
    "HU, integers, metal": (changed(chest("int16"), METAL), ""),
    "HU, float64, metal": (changed(chest("float64"), METAL), ""),
    "HU/1000, one outlier": (changed(chest(scale=0.001), {77: 50000.7}), ""),
    "HU, an infinity": (changed(chest(), {5: np.inf, 1000: 8001.0}), ""),
    "raw, 8192, padded": (changed(chest("int16", 1, 8192), dict.fromkeys(range(99), 0)), ""),
    "raw, 8192": (chest("int16", 1, 8192), f"{LOSS}4, expected ≤ "),
    "raw, 8192, floats": (chest("float32", 1, 8192), LOSS),
    "zeros": (np.zeros(SHAPE, np.float32), ""),
    "one value": (np.full(SHAPE, 0.1), ""),
    "one value, with an outlier": (changed(np.full(SHAPE, 0.1), {9: 30000.3}), ""),
    "one tiny value": (np.full(SHAPE, 1e-9), LOSS),
    "nearly one value": (1000 + 0.5 * NOISE, LOSS),
    "nearly one value, float64": (1 + 1e-12 * NOISE, f"{FLAT}0.99999"),
    "tiny": (1e-9 * NOISE, FLAT),
    "tiny, float32": (chest(scale=1e-12), f"{FLAT}-1"),
    "tiny, with an outlier": (changed(1e-9 * NOISE, {8: 1.0}), LOSS),
    "small": (1e-6 * NOISE, LOSS),
}


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[ShardRecord, list[str]]:
    """All of the table above as float16, in one shard; and the keys in the table's order."""
    folder = tmp_path_factory.mktemp("float16")
    made = write_synthetic_ctrate(folder, samples=len(FLOAT16), shape=(4, 4, 4), layout="flat")
    put(made, *(values for values, _ in FLOAT16.values()))
    record = convert_here(made, folder / "out", dtype="float16").record()
    return record, list(made.sources)


def put(made: SyntheticCtRate, *volumes: Array) -> None:
    """``volumes`` in the place of the synthetic ones."""
    for path, values in zip(made.sources.values(), volumes, strict=True):
        np.savez(path, data=values)


@pytest.mark.parametrize("name", FLOAT16)
def test_volumes_in_float16(name: str, converted: tuple[ShardRecord, list[str]]) -> None:
    """What float16 holds well enough is converted; the rest fails, and is told by how much."""
    record, keys = converted
    key = keys[list(FLOAT16).index(name)]
    reasons = {sample.key: sample.reason for sample in record.failed}
    expected = FLOAT16[name][1]
    if expected:
        assert reasons[key].startswith(expected)
        assert "--dtype int16" in reasons[key]
    else:
        assert key not in reasons


def steps_of(values: Array, step: float | None, folder: Path, make: Make, **more: Any) -> str:
    """Why ``values`` fail in steps of that size; empty where they do not."""
    made = make(1)
    put(made, values)
    record = convert_here(made, folder, dtype="int16", step=step, **more).record()
    return record.failed[0].reason if record.failed else ""


@pytest.mark.parametrize(
    ("values", "step", "expected"),
    [
        (chest(scale=0.001), 0.001, ""),
        (chest("float64", 0.001), 0.001, ""),
        (chest("float64", 0.001), 0.002, ""),
        (chest(scale=0.001), 10.0, FLAT),
        (chest("float64", 0.001), 10.0, FLAT),
        (chest(scale=0.001), 0.1, f"{LOSS}0.0"),
        (chest(scale=0.001), None, f"{LOSS}0.43"),
        (chest(), None, ""),
        (changed(chest(), METAL), 3.0, ""),
        (changed(chest(), METAL), 5.0, f"{LOSS}2."),
        (chest(scale=1e-12), 1e-12, ""),
        (np.full(SHAPE, -1, np.float32), 0.001, ""),
        (np.full(SHAPE, 0, np.float32), 0.001, ""),
        (np.full(SHAPE, 0.3, np.float32), 10.0, LOSS),
        (changed(np.full(SHAPE, -1, np.float32), {4: 1.0004}), 0.001, ""),
        (chest("int16"), 10.0, ""),
    ],
)
def test_volumes_in_steps(
    values: Array, step: float | None, expected: str, make_ctrate: Make, tmp_path: Path
) -> None:
    """A step may cost little of the values' spread, however large it is said to be."""
    reason = steps_of(values, step, tmp_path / "out", make_ctrate)
    assert reason.startswith(expected)
    assert bool(reason) == bool(expected)
    assert not reason or "a finer --step" in reason


def test_a_step_that_makes_all_one_fails_whatever_is_allowed(
    make_ctrate: Make, tmp_path: Path
) -> None:
    """--max_error accepts an error, not a volume of zeros."""
    values = chest(scale=0.001)
    reason = steps_of(values, 10.0, tmp_path / "out", make_ctrate, max_error=100.0)
    assert reason.startswith(FLAT)
    assert "--max_error" not in reason


def test_fortran_order_is_looked_at_twice(make_ctrate: Make, tmp_path: Path) -> None:
    """The second pass judges a volume with metal in the order in which it lies in the file."""
    made = make_ctrate(2)
    good, bad = changed(chest(), METAL), changed(chest() + 8192, METAL)
    put(made, np.asfortranarray(good), np.asfortranarray(bad))
    record = convert_here(made, tmp_path / "out", dtype="float16").record()
    assert [sample.reason.startswith(LOSS) for sample in record.failed] == [True]
    assert len(record.converted) == 1
    assert record.converted[0].array.max_abs_error == 2.0


def test_most_volumes_are_read_once(
    make_ctrate: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second pass takes an error that the spread alone does not allow."""
    made = make_ctrate(4)
    put(made, chest(scale=0.001), chest(), chest("int16"), chest("float64"))
    monkeypatch.delattr(second_look, "_errors")
    assert not convert_here(made, tmp_path / "out").record().failed


def test_a_source_that_changes_between_the_passes(
    make_ctrate: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second pass over another file settles nothing: the sample fails."""
    made = make_ctrate(1)
    put(made, changed(chest(), METAL))
    (source,) = made.sources.values()
    opened = open_source

    def replaced_first(*arguments: Any) -> Any:
        other = source.with_suffix(".other")
        other.write_bytes(source.read_bytes())
        other.replace(source)
        return opened(*arguments)

    monkeypatch.setattr(second_look, "open_source", replaced_first)
    (failed,) = convert_here(made, tmp_path / "out").record().failed
    assert "source changed while it was read" in failed.reason


# --- the command line ------------------------------------------------------------------------


def reasons_in(out: Path) -> dict[str, str]:
    """Why samples failed, by key."""
    text = (out / ".run" / "records" / "shard-000000.json").read_text()
    return {one.key: one.reason for one in ShardRecord.model_validate_json(text).failed}


def test_a_step_of_ten_on_thousandths_keeps_the_sources(make_ctrate: Make, tmp_path: Path) -> None:
    """HU/1000 in steps of 10 would be zeros: exit code 2; a finer step converts the sources."""
    made = make_ctrate(2, kinds=("arr_0",))
    put(made, chest(scale=0.001), chest("float64", 0.001))
    out = tmp_path / "out"
    options = ("--dtype", "int16", "--step", 10, "--probe", 0, *DELETE)
    done = run_cli(*convert_words(made, out, *options))
    assert done.code == ExitCode.SAMPLES_FAILED
    assert all(path.exists() for path in made.sources.values())
    assert "all voxels become one value" in done.text
    for reason in reasons_in(out).values():
        assert reason.startswith(FLAT)
        assert reason.endswith("expected values that stay apart; give a finer --step")
    again = run_cli(*convert_words(made, out, "--dtype", "int16", "--step", 0.001, "--probe", 0))
    assert again.code == ExitCode.DONE, again.text


def test_tiny_units_keep_their_source_and_metal_passes(make_ctrate: Make, tmp_path: Path) -> None:
    """float16 fails the volume around 1e-9 alone; those with metal or an outlier are converted."""
    made = make_ctrate(4)
    volumes = [1e-9 * NOISE, changed(chest(), METAL), changed(chest(), {5: 30001.0}), chest()]
    put(made, *volumes)
    out = tmp_path / "out"
    done = run_cli(*convert_words(made, out, "--probe", 0, *DELETE))
    assert done.code == ExitCode.SAMPLES_FAILED
    (tiny,) = reasons_in(out)
    assert tiny == next(iter(made.sources))
    assert made.sources[tiny].exists()


def test_an_error_that_is_accepted(make_ctrate: Make, tmp_path: Path) -> None:
    """Raw values of 8192 fail in the original's layout; the message gives what accepts them."""
    made = make_ctrate(1)
    put(made, chest("int16", 1, 8192))
    out = tmp_path / "out"
    options = ("--layout", "ctclip", "--probe", 0)
    done = run_cli(*convert_words(made, out, *options))
    assert done.code == ExitCode.SAMPLES_FAILED
    (reason,) = reasons_in(out).values()
    assert "give --max_error 4 to accept it" in reason
    again = run_cli(*convert_words(made, out, *options, "--max_error", 4))
    assert again.code == ExitCode.DONE, again.text


def test_the_plan_tells_of_a_coarse_step(make_ctrate: Make, tmp_path: Path) -> None:
    """A probe gives the reason that a run would give, in its words."""
    made = make_ctrate(1, kinds=("arr_0",))
    put(made, chest(scale=0.001))
    out = tmp_path / "out"
    done = run_cli(*plan_words(made, out, "--dtype", "int16", "--step", 0.1, "--probe", 1))
    assert done.code == ExitCode.DONE, done.text
    (plan,) = load_plans(Dataset(out))
    assert plan.probe is not None
    assert plan.probe.chosen.failure.startswith(f"train_1_a_1: {LOSS}0.0")
    assert f"fails with --encoding npy --dtype int16 --step 0.1: train_1_a_1: {LOSS}" in done.text


def test_the_message_names_a_value_that_suffices() -> None:
    """Three digits, never rounded down."""
    for number in (4.0, 0.0005001, 1.0000001, 99.96, 3e-9, 65519.0):
        assert number <= float(_rounded_up(number)) <= number * 1.02

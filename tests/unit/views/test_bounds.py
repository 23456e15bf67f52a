"""Bounds: what would overflow, or take all memory, is refused by name; the rest comes out right."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctrate_convert import Volumes
from ctrate_convert.errors import ExitCode, SampleError, SettingsError
from ctrate_convert.store.records.base import MAX_ARRAY_BYTES
from ctrate_convert.store.records.recipe import (
    OUTPUT_BYTES,
    Output,
    Recipe,
    Size,
    SpacingMm,
    as_toml,
    recipe_in_toml,
    recipe_of,
)
from ctrate_convert.synthetic import write_synthetic_ctrate
from ctrate_convert.views.described import view_facts
from ctrate_convert.views.presets import presets
from ctrate_convert.views.view import View, facts_of
from tests.support import Converted, convert_here, run_here
from tests.unit.views.support import Array, Grid, facts, noise, read, stored_as

PLAIN: dict[str, Any] = {
    "name": "plain", "spacing_mm": {"x": 1, "y": 1, "z": 1}, "size_rule": "int(n*c/t)",
    "coordinates": "half_pixel", "axes": "xyz",
}  # fmt: skip
GRID = Grid((8, 7, 6), 1.0, 1.0, (8, 7, 6))
FIELDS = {"axes": "zyx", "spacing_axes_mm": [1.0, 1.0, 1.0], "hu_slope": 1.0, "grid": "native"}


def recipe(**more: Any) -> Recipe:
    return recipe_of({**PLAIN, **more}, "test")


def view_of(stored: Array, of: Recipe) -> View:
    return View(of, facts(stored, "xyz", GRID))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"output": "float16", "window_hu": [-1000, 1000], "values": [0, 1e9]}, "fit float16"),
        ({"output": "float16", "window_hu": [-1000, 1000], "values": [-1e308, 1e308]}, "float16"),
        ({"output": "float16", "window_hu": [-1000, 1000], "values": [0, 5e-324]}, "0.001 apart"),
        ({"output": "float16", "window_hu": [-70000, 70000]}, "fit int16"),
        ({"output": "uint8", "window_hu": [1e6, 1e6 + 1]}, "fit int16"),
        ({"output": "uint8", "window_hu": [1000, 1000.01]}, "narrower than 1 HU"),
        ({"output": "uint8", "window_hu": [100, 100.001]}, "narrower than 1 HU"),
        ({"output": "uint8", "window_hu": [-1e-300, 1e-300]}, "narrower than 1 HU"),
        ({"window_hu": [0, 10**400]}, "window_hu"),
        ({"spacing_mm": {"x": 1e-6, "y": 1, "z": 1}}, "spacing_mm.x"),
        ({"spacing_mm": {"x": 1, "y": 1e-320, "z": 1}}, "spacing_mm.y"),
        ({"spacing_mm": {"x": 1, "y": 1, "z": 1e-300}}, "spacing_mm.z"),
        ({"size": {"x": 2048, "y": 2048, "z": 1024}, "pad_hu": 0}, "larger than 2147483648 bytes"),
        ({"size": {"x": 2**16, "y": 2**16, "z": 2**16}, "pad_hu": 0}, "larger than"),
    ],
)
def test_a_recipe_beyond_its_bounds_is_refused(
    more: dict[str, Any], why: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=why):
        recipe(**more)
    path = tmp_path / "own.toml"
    lines = [f"{key} = {_toml(value)}" for key, value in {**PLAIN, **more}.items()]
    path.write_text("\n".join(lines))
    told = run_here("recipes", path)
    assert told.code == ExitCode.USAGE
    assert why in told.stderr and "unexpected" not in told.stderr


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {one!r}" for key, one in value.items()) + " }"
    return repr(value)


def test_an_integer_of_too_many_digits_is_refused() -> None:
    with pytest.raises(SettingsError, match="not a TOML file"):
        recipe_in_toml(f"pad_hu = {'1' * 5000}", "own.toml")


@pytest.mark.parametrize("output", ["uint8", "float16"])
@pytest.mark.parametrize(
    "window",
    [
        (1000, 1001),
        (-32768, -32767),
        (32766, 32767),
        (-32768, 32767),
        (1000.1, 1001.3),
        (-0.5, 0.5),
    ],
)
def test_the_windows_ends_become_the_ends_of_the_output(
    window: tuple[float, float], output: Output
) -> None:
    """And so does what lies beyond them, however narrow the window is."""
    values = None if output == "uint8" else (-65504.0, 65504.0)
    made_of = recipe(output=output, window_hu=window, values=values)
    stored = np.array([-32768, 32767, -40000, 70000], np.int32).reshape(4, 1, 1)
    low, high = (0, 255) if output == "uint8" else (-65504, 65504)
    with np.errstate(all="raise"):
        found = read(view_of(stored, made_of), stored)
    assert found.ravel().tolist() == [low, high, low, high]


@pytest.mark.parametrize("output", OUTPUT_BYTES)
def test_voxels_beyond_every_type_are_clipped(output: Output) -> None:
    """Without a window where the output can do without: nothing wraps, nothing is infinite."""
    window = (-1000, 1000) if output == "uint8" else None
    stored = np.array([-(2**31), 2**31 - 1], np.int32).reshape(2, 1, 1)
    with np.errstate(all="raise"):
        found = read(view_of(stored, recipe(output=output, window_hu=window)), stored).ravel()
    ends = {"int16": [-32768, 32767], "uint8": [0, 255], "float16": [-65504, 65504]}
    assert found.tolist() == ends[output]


def test_the_bytes_of_each_output() -> None:
    assert {name: np.dtype(name).itemsize for name in OUTPUT_BYTES} == OUTPUT_BYTES


def test_a_size_of_just_the_limit_is_a_recipe() -> None:
    size = {"x": 2048, "y": 1024, "z": 512}
    assert recipe(size=size, pad_hu=0).size
    assert MAX_ARRAY_BYTES == 2048 * 1024 * 512 * 2
    with pytest.raises(SettingsError, match="larger than"):
        recipe(size={**size, "z": 513}, pad_hu=0)
    assert recipe(size={**size, "z": 1024}, pad_hu=0, output="uint8", window_hu=(0, 9)).size


@pytest.mark.parametrize("more", [{}, {"size_is": "least", "pad_hu": 0}])
def test_a_view_that_is_too_large_is_refused_before_memory_is_asked_for(
    more: dict[str, Any],
) -> None:
    """Its size comes of the spacing, so that only the volume tells it."""
    size = {"size": {"x": 9, "y": 9, "z": 9}} if more else {}
    fine = recipe(spacing_mm={"x": 0.01, "y": 0.01, "z": 0.01}, **size, **more)
    told = facts(np.empty((300, 300, 300), np.int8), "xyz", GRID)
    tracemalloc.start()
    with pytest.raises(SampleError, match="too large") as refused:
        View(fine, told)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert refused.value.where == "one" and "30000×30000×30000" in str(refused.value.seen)


def test_a_part_of_a_fine_grid_is_no_large_view() -> None:
    """`size` cuts before anything is computed: a fine spacing alone costs nothing."""
    xyz = noise((40, 40, 40), 1)
    stored = stored_as(xyz, "zyx")
    fine = recipe(
        spacing_mm={"x": 0.01, "y": 0.01, "z": 0.01}, size={"x": 5, "y": 4, "z": 3}, pad_hu=0
    )
    view = View(fine, facts(stored, "zyx", GRID))
    assert view.resampled == (4000, 4000, 4000) and read(view, stored).shape == (5, 4, 3)


@pytest.mark.parametrize("spacing", [1e-320, 1e-6, 1e6, 1e300, 1e308, float("inf"), float("nan")])
def test_a_volume_of_no_scanners_spacing_is_refused(spacing: float) -> None:
    with pytest.raises(SampleError, match="spacing"):
        facts_of({**FIELDS, "spacing_axes_mm": [1.0, spacing, 1.0]}, "one", (9, 9, 9))


@pytest.mark.parametrize("name", presets())
def test_a_preset_at_the_ends_of_every_spacing_says_where_it_lies(name: str) -> None:
    """A view, or a refusal by name; never an overflow."""
    for volume_mm in (0.001, 0.8, 1000.0):
        for target_mm in (0.01, 1000.0):
            target = SpacingMm(x=target_mm, y=target_mm, z=target_mm)
            of = presets()[name].model_copy(update={"spacing_mm": target, "orientation": ""})
            told = facts(
                np.empty((9, 9, 9)), "zyx", Grid((9, 9, 9), volume_mm, volume_mm, (1, 1, 1))
            )
            try:
                view_facts(View(of, told))
            except SampleError as error:
                assert "nothing is left" in error.what or "too large" in error.what


def test_toml_of_every_character_comes_back() -> None:
    """TOML forbids DEL as it is, and a terminal may obey the controls beyond it."""
    about = "".join(map(chr, [*range(0x100), 0x2028, 0x1F642])) + '"""\\'
    text = as_toml(recipe(about=about))
    assert recipe_in_toml(text, "shown").about == about
    assert not [char for char in text if char != "\n" and not char.isprintable() and char < "\xa0"]


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    folder = tmp_path_factory.mktemp("native")
    made = write_synthetic_ctrate(folder / "ctrate", samples=3, shape=(60, 56, 25))
    return convert_here(made, folder / "out", samples_per_shard=2)


def test_units_of_a_stored_view_are_those_made_while_reading(
    native: Converted, tmp_path: Path
) -> None:
    """To the bit, where the slope is no number of few digits."""
    size = Size(x=40, y=42, z=20)
    for output in ("uint8", "float16"):
        more = {"output": output, "size": size, "window_hu": (-1150.0, 350.0), "pad_hu": -1150.0}
        path = tmp_path / f"{output}.toml"
        path.write_text(as_toml(presets()["ctclip"].model_copy(update=more)))
        out = tmp_path / output
        planned = run_here("plan", "--view", path, "--from", native.out, "--output_dir", out)
        assert planned.code == ExitCode.DONE
        assert run_here("run", out, "--num_workers", 1).code == ExitCode.DONE
        stored, on_the_fly = Volumes(out), Volumes(native.out, view=path)
        assert len(stored) == 2
        for key in stored:
            assert stored[key].hu().tobytes() == on_the_fly[key].hu().tobytes()
            assert stored[key].array[...].tobytes() == on_the_fly[key].array[...].tobytes()


def test_a_view_that_is_too_large_is_refused_by_every_way_in(
    native: Converted, tmp_path: Path
) -> None:
    path = tmp_path / "fine.toml"
    path.write_text(as_toml(recipe(spacing_mm={"x": 0.01, "y": 0.01, "z": 0.01})))
    volumes = Volumes(native.out, view=path)
    known = [key for key in native.made.keys if key != native.made.without_spacing]
    for key in known:
        with pytest.raises(SampleError, match="too large"):
            _ = volumes[key].array
    told = run_here("plan", "--view", path, "--from", native.out, "--output_dir", tmp_path / "out")
    assert told.code == ExitCode.USAGE and "too large" in told.text, told.text


def test_recipes_of_one_name_are_told_apart(native: Converted, tmp_path: Path) -> None:
    path, out = tmp_path / "own.toml", tmp_path / "out"
    one, other = recipe(), recipe(odd_voxel="before")
    said = []
    for of in (one, other):
        path.write_text(as_toml(of))
        said.append(run_here("plan", "--view", path, "--from", native.out, "--output_dir", out))
    assert [told.code for told in said] == [ExitCode.DONE, ExitCode.REFUSED]
    assert one.title in said[1].text and other.title in said[1].text

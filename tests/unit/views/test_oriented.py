"""Presets with an orientation, from NIfTI files, which tell theirs: read, stored, put back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ctrate_convert import Volumes, unview
from ctrate_convert.errors import ExitCode
from ctrate_convert.store.records.recipe import Size, as_toml
from ctrate_convert.synthetic import write_synthetic_ctrate
from ctrate_convert.views.presets import presets
from tests.support import convert_here, run_here

ORIENTED = [name for name, recipe in presets().items() if recipe.orientation]


@pytest.mark.parametrize("name", ORIENTED)
def test_stored_is_as_on_the_fly_and_comes_back(name: str, tmp_path: Path) -> None:
    made = write_synthetic_ctrate(
        tmp_path / "ctrate", samples=3, shape=(60, 56, 25), kinds=("nii.gz",)
    )
    native = convert_here(made, tmp_path / "out", samples_per_shard=2)
    recipe = presets()[name].model_copy(update={"size": Size(x=70, y=72, z=40)})
    path = tmp_path / "own.toml"
    path.write_text(as_toml(recipe), encoding="utf-8")
    out = tmp_path / "views"
    planned = run_here("plan", "--view", path, "--from", native.out, "--output_dir", out)
    assert planned.code == ExitCode.DONE, planned.stderr
    assert run_here("run", out, "--num_workers", 2).code == ExitCode.DONE
    stored, on_the_fly, volumes = Volumes(out), Volumes(native.out, view=path), Volumes(native.out)
    assert len(stored) > 0
    for key, sample in stored.items():
        array = sample.array[...]
        assert array.tobytes() == on_the_fly[key].array[...].tobytes()
        assert sample.json["orientation"] == "RAS"
        assert min(sample.json["view"]["native_step"][:2]) < 0
        found = unview(sample.hu() > -400, sample.json["view"])
        assert found.shape == volumes[key].array.shape
        assert np.mean(found == (volumes[key].hu() > -400)) > 0.85

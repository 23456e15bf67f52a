"""What an earlier version wrote is read for ever: datasets of every stored format version."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ctrate_convert import Volumes
from ctrate_convert.errors import ExitCode
from ctrate_convert.synthetic import write_synthetic_ctrate
from tests.support import load_originals, run_here

GOLDEN = Path(__file__).parent / "golden"
DATASETS = sorted(path for path in GOLDEN.glob("v*/*") if path.is_dir())


@pytest.mark.parametrize("golden", DATASETS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_earlier_versions_dataset_is_sound_and_decodes(golden: Path, tmp_path: Path) -> None:
    """Plan, records and manifest are believed, nothing is damaged, and the voxels are the same."""
    out = tmp_path / "out"
    shutil.copytree(golden, out)
    manifest = (out / "manifest.json").read_bytes()
    assert run_here("merge", out).code == ExitCode.DONE
    assert (out / "manifest.json").read_bytes() == manifest
    verified = run_here("verify", out, "--full")
    assert verified.code == ExitCode.DONE, verified.text

    made = write_synthetic_ctrate(
        tmp_path / "made", samples=4, shape=(6, 5, 4), seed=1, layout="flat"
    )
    originals = load_originals(made)
    volumes = Volumes(out, units="source")
    assert sorted(volumes) == sorted(made.keys)
    for key in made.keys:
        np.testing.assert_allclose(volumes[key].array[:], originals[key], atol=0.0005)

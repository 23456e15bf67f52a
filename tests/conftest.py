"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from ctrate_convert.synthetic import SyntheticCtRate, write_synthetic_ctrate
from tests.support import Converted, Finished, convert_here, run_cli

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

os.environ["LANGUAGE"] = "en"  # whatever the developer speaks

REAL_CT_VARIABLE = "CTRATE_REAL_CT"
SMALL: dict[str, Any] = {"shape": (6, 5, 4), "layout": "flat"}


TESTS = Path(__file__).parent
UNIT = TESTS / "unit"
SLOW = [
    TESTS / "promises",
    TESTS / "documents",
    # Attacks and terminals that are processes of their own, and memory that is measured.
    UNIT / "checking" / "test_doctor.py",
    UNIT / "checking" / "test_doctor_nodes.py",
    UNIT / "cli" / "test_terminal.py",
    UNIT / "deleting" / "test_attacks.py",
    UNIT / "deleting" / "test_attacks_meanwhile.py",
    UNIT / "deleting" / "test_attacks_nifti.py",
    UNIT / "deleting" / "test_consent.py",
    UNIT / "deleting" / "test_trusted.py",
    UNIT / "formats" / "test_shapes.py",
    # Pages that are drawn, and a browser that shows them.
    UNIT / "reporting" / "test_in_a_browser.py",
    UNIT / "reporting" / "test_report_page.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by folder: what runs on Slurm, and what takes its time wherever it runs."""
    for item in items:
        if TESTS / "cluster" in item.path.parents:
            item.add_marker(pytest.mark.slurm)
        if any(place in (item.path, *item.path.parents) for place in SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """Each test begins with the usual umask: commands that run in this process only narrow it."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def ctrate(tmp_path: Path) -> SyntheticCtRate:
    """A small synthetic CT-RATE of its own: eight volumes, all four kinds of NPZ."""
    return write_synthetic_ctrate(tmp_path / "ctrate", samples=8, **SMALL)


@pytest.fixture
def make_ctrate(tmp_path: Path) -> Callable[..., SyntheticCtRate]:
    """Writes a small synthetic CT-RATE as asked for."""

    def make(samples: int, **more: Any) -> SyntheticCtRate:
        return write_synthetic_ctrate(tmp_path / "ctrate", samples=samples, **{**SMALL, **more})

    return make


@pytest.fixture
def converted(ctrate: SyntheticCtRate, tmp_path: Path) -> Converted:
    """Eight samples in two published, recorded and merged shards; their sources still there."""
    return convert_here(ctrate, tmp_path / "out", samples_per_shard=4)


@pytest.fixture
def cli() -> Callable[..., Finished]:
    """Runs the real command line in a process of its own, without a terminal."""
    return run_cli


@pytest.fixture(scope="session")
def real_ct() -> Path:
    """The folder with real CT volumes, which cannot be part of this project."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "real-ct"
    folder = Path(os.environ.get(REAL_CT_VARIABLE, beside))
    if not any(folder.glob("*.npz")):
        pytest.skip(f"no real CT volumes: {REAL_CT_VARIABLE} names no folder with NPZ files")
    return folder

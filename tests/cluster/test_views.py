"""A dataset of views through a real Slurm: submitted, relaunched, and to the bit a local run's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ctrate_convert import Volumes
from slurm.testbed import Cluster
from tests.cluster.faults import Faults
from tests.cluster.site import Site, site
from tests.cluster.test_submit_end_to_end import shards
from tests.unit.views.test_stored import recipe_in


@pytest.fixture
def native(cluster: Cluster, tmp_path: Path) -> Iterator[Site]:
    """Six converted samples in six shards; the one that tells no spacing has no view."""
    with site(cluster, tmp_path, shape=(30, 28, 12)) as one:
        one.ok("run", one.out, "--num_workers", 2)
        yield one


def views_of(native: Site, out: Path) -> Site:
    recipe = recipe_in(out.parent)
    native.ok("plan", "--view", recipe, "--from", native.out, "--output_dir", out)
    return Site(native.cluster, native.made, out)


def test_views_that_failed_are_relaunched_and_equal_those_of_a_local_run(
    native: Site, tmp_path: Path
) -> None:
    views = views_of(native, tmp_path / "views")
    faults = Faults(tmp_path / "faults")
    faults.at(0, "error")
    faults.at(1, "exit")
    views.submit(*faults.words())
    facts = views.wait_until_settled()
    states = [task["state"] for task in facts["tasks"]]
    assert states.count("failed") == 2 and states.count("done") == len(states) - 2
    faults.clear()
    views.ok("relaunch", views.out)
    facts = views.wait_until_settled()
    assert [(task["state"], task["evidence"]) for task in facts["tasks"]] == [
        ("done", "record")
    ] * len(states)
    elsewhere = views_of(native, tmp_path / "local")
    elsewhere.ok("run", elsewhere.out, "--num_workers", 2)
    assert shards(views.out) == shards(elsewhere.out)
    views.ok("merge", views.out)
    views.ok("verify", views.out, "--full", "--submit", "--mem_gb", 0.25)
    views.wait_until_settled()
    checked = Volumes(views.out)
    while_reading = Volumes(native.out, view=recipe_in(tmp_path))
    assert set(checked) == set(native.made.keys) - {native.made.without_spacing}
    for key, sample in checked.items():
        assert np.array_equal(sample.array, while_reading[key].array)


def test_a_sample_whose_shard_was_away_is_tried_again_in_a_further_shard(
    native: Site, tmp_path: Path
) -> None:
    """Bad input costs only itself, names itself, and is no reason to run the others again."""
    views = views_of(native, tmp_path / "views")
    away = native.out / "shard-000005.tar"
    aside = tmp_path / away.name
    away.rename(aside)
    views.submit()
    facts = views.wait_until_settled()
    assert facts["samples"]["failed"] == 1
    (failed,) = facts["failed_samples"]
    assert native.dataset.shard(5).name in failed["source"]
    aside.rename(away)
    views.ok("relaunch", views.out, "--failed_samples")
    facts = views.wait_until_settled()
    assert facts["samples"]["failed"] == 0 and facts["samples"]["pending"] == 0
    assert set(Volumes(views.out)) == set(native.made.keys) - {native.made.without_spacing}

"""One real Slurm for all tests of this directory."""

import os
from collections.abc import Iterator

import pytest

from slurm.testbed import Cluster, unavailable_reason


@pytest.fixture(scope="session")
def real_slurm() -> None:
    """Skip where Slurm is not installed; fail where CTRATE_REQUIRE_SLURM=1 says it must be."""
    if reason := unavailable_reason():
        if os.environ.get("CTRATE_REQUIRE_SLURM") == "1":
            pytest.fail(f"CTRATE_REQUIRE_SLURM=1, but {reason}", pytrace=False)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def cluster(real_slurm: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes of two CPUs with accounting, shared by all tests: clean up your jobs."""
    with Cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running

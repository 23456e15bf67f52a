"""How many files a submission leaves for each task: those of docs/scale.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm.testbed import Cluster
from tests.cluster.site import Site, site
from tests.unit.running.test_files import ONCE, SHARD, files

TASKS = 6


@pytest.fixture
def six(cluster: Cluster, tmp_path: Path) -> Iterator[Site]:
    with site(cluster, tmp_path, tasks=TASKS) as one:
        yield one


def test_a_task_leaves_seven_files_and_a_submission_ten(six: Site) -> None:
    """Beside those of its shard; with the finaliser's four, two job scripts and four records."""
    six.submit()
    six.wait_until_settled()
    six.wait(lambda facts: any(six.dataset.submissions.glob("*/report.json")))
    six.wait(lambda facts: any(six.dataset.logs.glob("0001/01/*_result.pkl")))
    expected = Counter(ONCE)
    expected.update({folder: number * TASKS for folder, number in SHARD.items()})
    expected.update({".run/attempts/*": 3 * TASKS, ".run/logs/0001/00": 4 * TASKS})
    expected.update({".run/logs/0001/00": 1, ".run/logs/0001/01": 5, ".run/submissions/0001": 4})
    expected.update({".run/locks": 1})  # of submitting
    assert files(six.out) == expected

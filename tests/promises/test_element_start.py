"""An element runs no payload that anybody but its owner could have written.

Through the real entry point, with the environment that Slurm gives an element.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from submitit.core.utils import DelayedSubmission

from ctrate_convert.cluster.scheduler.launcher import executor
from ctrate_convert.cluster.scheduler.profile import ClusterProfile
from ctrate_convert.cluster.submissions import ArrayIntent, Resources
from ctrate_convert.errors import ExitCode
from tests.support import TIMEOUT_S

FOREIGN = 12345
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


class Leave:
    """Creates a file when it is unpickled; called, it leaves another one."""

    def __init__(self, unpickled: str, ran: str) -> None:
        self.names = unpickled, ran

    def __setstate__(self, state: dict[str, tuple[str, str]]) -> None:
        self.__dict__.update(state)
        Path(self.names[0]).touch()

    def __call__(self) -> None:
        os.umask(umask := os.umask(0))
        Path(self.names[1]).write_text(f"{umask:03o}")


class Element:
    """A folder as `submit` leaves it, and the job script's link in it."""

    def __init__(self, tmp_path: Path) -> None:
        self.run = tmp_path / "out" / ".run"
        self.folder = self.run / "logs" / "0001" / "00"
        self.folder.mkdir(0o755, parents=True)
        for folder in (self.run, *self.folder.relative_to(self.run).parents):
            (self.run / folder).chmod(0o755)
        self.unpickled, self.ran = tmp_path / "unpickled", tmp_path / "ran"
        self.payload = self.folder / "payload-0.pkl"
        DelayedSubmission(Leave(str(self.unpickled), str(self.ran))).dump(self.payload)
        self.payload.chmod(0o600)
        self.link = self.folder / "17_0_submitted.pkl"
        self.link.symlink_to(self.payload.name)

    def start(self, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        words = ["-u", "-m", "ctrate_convert.cluster.start", str(folder or self.folder)]
        facts = {"SLURM_JOB_ID": "18", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "0"}
        return subprocess.run(
            [sys.executable, *words],
            env={**os.environ, "SUBMITIT_EXECUTOR": "slurm", **facts},
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip


@pytest.fixture
def element(tmp_path: Path) -> Element:
    return Element(tmp_path)


def test_a_payload_that_only_its_owner_could_write_runs(element: Element) -> None:
    """submitit runs it, and leaves its result beside it."""
    done = element.start()
    assert done.returncode == 0, done.stderr
    assert element.unpickled.exists() and element.ran.exists()
    assert (element.folder / "17_0_0_result.pkl").exists()


def test_an_element_makes_nothing_more_open_than_the_dataset(element: Element) -> None:
    """From its first file on, submitit's own among them."""
    element.run.chmod(0o700)
    assert element.start().returncode == 0
    assert element.ran.read_text() == "077"
    assert (element.folder / "17_0_0_result.pkl").stat().st_mode & 0o077 == 0


def replace_by_link(element: Element, path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def payload_elsewhere(element: Element) -> None:
    element.link.unlink()
    element.link.symlink_to("../payload.pkl")
    element.payload.rename(element.folder.parent / "payload.pkl")


def payload_by_two_links(element: Element) -> None:
    replace_by_link(element, element.payload)


def chmod(name: str, mode: int) -> Callable[[Element], None]:
    return lambda element: getattr(element, name).chmod(mode)


def give_away(path: Callable[[Element], Path]) -> Callable[[Element], None]:
    return lambda element: os.chown(path(element), FOREIGN, -1, follow_symlinks=False)


TAMPERED: dict[str, Callable[[Element], None]] = {
    "payload writable by the group": chmod("payload", 0o660),
    "payload writable by everybody": chmod("payload", 0o606),
    "folder writable by the group": chmod("folder", 0o775),
    ".run writable by the group": chmod("run", 0o770),
    "a folder between writable by everybody": lambda e: e.folder.parent.chmod(0o757),
    "the folder is a link": lambda e: replace_by_link(e, e.folder),
    "a folder between is a link": lambda e: replace_by_link(e, e.folder.parent),
    ".run is a link": lambda e: replace_by_link(e, e.run),
    "the payload leads elsewhere": payload_elsewhere,
    "the payload is a link to a link": payload_by_two_links,
}
GIVEN_AWAY: dict[str, Callable[[Element], None]] = {
    "payload": give_away(lambda e: e.payload),
    "link": give_away(lambda e: e.link),
    "folder": give_away(lambda e: e.folder),
    "a folder between": give_away(lambda e: e.folder.parents[1]),
    ".run": give_away(lambda e: e.run),
}


def assert_refused(element: Element) -> None:
    done = element.start()
    assert done.returncode == ExitCode.REFUSED, done.stderr
    assert "error: this element was not started" in done.stderr
    for word in (str(element.run), "seen:", "expected:", "next:"):
        assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert not element.unpickled.exists() and not element.ran.exists()


@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED)
def test_what_others_could_write_is_not_unpickled(
    element: Element, tamper: Callable[[Element], None]
) -> None:
    """The element ends with exit code 4 and says which path was seen how."""
    tamper(element)
    assert_refused(element)


@AS_ROOT
@pytest.mark.parametrize("tamper", GIVEN_AWAY.values(), ids=GIVEN_AWAY)
def test_what_belongs_to_somebody_else_is_not_unpickled(
    element: Element, tamper: Callable[[Element], None]
) -> None:
    """Whatever its mode: its owner may write it."""
    tamper(element)
    assert_refused(element)


def test_a_link_above_the_dataset_is_no_harm(element: Element, tmp_path: Path) -> None:
    """Sites name their file systems through links; the person who submitted followed them too."""
    (tmp_path / "by-link").symlink_to(tmp_path / "out")
    folder = tmp_path / "by-link" / element.folder.relative_to(tmp_path / "out")
    assert element.start(folder).returncode == 0
    assert element.ran.exists()


def test_the_job_script_starts_elements_by_this_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And imports nothing from the directory that the person submitted from."""
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}:{os.environ['PATH']}")
    array = ArrayIntent(
        job_name="a", kind="convert", tasks=(0,), parallelism=1, why="",
        resources=Resources(timeout_min=5, mem_mb=100, cpus_per_task=1),
    )  # fmt: skip
    folder = tmp_path / "it's here"
    text = executor(folder, ClusterProfile(), array, client=None).script(1)  # type: ignore[arg-type]
    assert "-u -m ctrate_convert.cluster.start " in text
    assert "submitit.core._submit" not in text
    assert "export PYTHONSAFEPATH=1" in text

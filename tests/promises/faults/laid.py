"""Sources, the command that converts and deletes them in one process, and where that ends."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ctrate_convert.errors import ExitCode
from tests.promises.crash.disk import Disk, Tree
from tests.promises.crash.scenario import Ending, Scenario, disk_folder
from tests.support import TIMEOUT_S, Finished, read_shard_file


class Fault(NamedTuple):
    """The ``when``-th ``call`` on ``path`` (below the output, or ``npz/``) fails with ``how``."""

    call: str
    path: str
    how: str
    when: int = 1

    def __str__(self) -> str:
        return f"{self.how} {self.call} {self.when} {Path(self.path).name}"

    @property
    def strace(self) -> tuple[str, str]:
        """What strace is to do, without the path."""
        signal = self.how in ("KILL", "STOP")
        how = f"signal={self.how}" if signal else f"error={self.how}"
        return "-e", f"inject={self.call}:{how}:when={self.when}"


@dataclass(frozen=True)
class Laid:
    """Where everything is, as it stood before the first run, and where a run ends."""

    scenario: Scenario
    start: Tree
    ending: Ending

    @property
    def words(self) -> list[object]:
        return self.scenario.words

    def command(self, *more: object) -> list[str]:
        """The command in one process, its files' names known."""
        return [sys.executable, "-m", "tests.one_process", *map(str, (*self.words, *more))]

    def path(self, fault: Fault) -> Path:
        if fault.path.startswith("npz/"):
            return self.scenario.disk_folder / fault.path
        return self.scenario.out / fault.path

    def assert_safe(self) -> None:
        """Every source is there or proven, and no file that looks like a shard is half of one."""
        assert self.scenario.lost() is None
        for path in self.scenario.out.glob("*.tar"):
            assert path.read_bytes() == self.ending.shards[path.name]
            assert len(read_shard_file(path)) == 2

    def assert_goes_on(self) -> None:
        """The same command comes to the end of an undisturbed run."""
        again = self.scenario.run()
        assert again.code == ExitCode.DONE, again.text
        assert self.scenario.incomplete(self.ending) is None


@contextlib.contextmanager
def lay(name: str, scenario_class: type[Scenario] = Scenario) -> Iterator[Laid]:
    """A folder with the sources, and what an undisturbed run makes of them."""
    with disk_folder(name) as folder:
        scenario = scenario_class.make(folder)
        start = Disk.load(scenario.disk_folder).now().tree
        assert scenario.run().code == ExitCode.DONE
        yield Laid(scenario, start, Ending(scenario.shards(), scenario.manifest()))


def finished(command: list[str], before: Callable[[], None] | None = None) -> Finished:
    """Run it to its end; ``before`` runs in the new process."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        preexec_fn=before,
    )
    return Finished(done.returncode, done.stdout, done.stderr)

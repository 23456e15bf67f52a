"""Faults inside an element, by the element's index; they come in through the profile's ``setup``.

The worker that converts a shard is made to outgrow its memory, to meet an error of the disk, or to
wait. Taking a fault away lets a worker that waits go on, and the next one do its work.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Literal

Fault = Literal["memory", "error", "hang", "slow", "exit"]
"""``hang`` waits and is deaf to being stopped, as on a dead file system; ``slow`` is not.

``exit`` ends the job script before the element has begun: nothing but Slurm can tell of it.
"""

_HOOK = """
import errno, os, pathlib, sys, time

fault = pathlib.Path(__file__).with_name(os.environ.get("SLURM_ARRAY_TASK_ID", "none"))


def told():
    return fault.read_text() if fault.exists() else ""


def befall_the_worker():
    worker = sys.modules.get("ctrate_convert.running.worker")
    if worker is None:
        return
    convert = worker.convert_shard

    def convert_after_the_fault(dataset, plan, shard, attempt, reporter, *more, **named):
        hog = []
        while said := told():
            if said == "memory":
                hog.append(bytearray(16 << 20))
            elif said == "error":
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(dataset.shard(shard.index)))
            elif said == "slow":
                reporter.check_stop()
            time.sleep(0.02 if said == "memory" else 0.1)
        return convert(dataset, plan, shard, attempt, reporter, *more, **named)

    worker.convert_shard = convert_after_the_fault


os.register_at_fork(after_in_child=befall_the_worker)
"""


class Faults:
    """The faults of one site, as files that its elements look at."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(_HOOK)

    def words(self) -> tuple[str, ...]:
        """The options that let an element have them."""
        folder = shlex.quote(str(self._folder))
        ends = f'case "$(cat {folder}/"$SLURM_ARRAY_TASK_ID" 2> /dev/null)" in exit) exit 3;; esac'
        return "--setup", ends, "--setup", f"export PYTHONPATH={folder}"

    def at(self, index: int, fault: Fault) -> None:
        """Let element ``index`` have ``fault``, or another one than it had."""
        new = self._folder / f"{index}.new"
        new.write_text(fault)
        new.replace(self._folder / str(index))

    def clear(self, *indices: int) -> None:
        """Take away these faults, or all."""
        for path in self._folder.iterdir():
            if path.name.isdigit() and (not indices or int(path.name) in indices):
                path.unlink()

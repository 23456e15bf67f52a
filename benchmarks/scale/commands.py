"""Commands in processes of their own, and what they took; and records like a real one."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ctrate_convert.store.ledger import Ledger
from ctrate_convert.store.plans import load_samples
from ctrate_convert.store.records.record import ConvertedSample, ShardRecord
from ctrate_convert.synthetic import SyntheticCtRate, write_synthetic_ctrate


@dataclass(frozen=True)
class Ran:
    """What one command took."""

    wall_s: float
    peak_mib: float

    def cells(self) -> list[str]:
        """As two cells of a table."""
        return [f"{self.wall_s:.1f} s", f"{self.peak_mib:,.0f} MiB"]


# A process counts the memory of the one that started it as its own, so a small one starts it.
_STARTER = """
import os, sys

quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
words = [sys.executable, *sys.argv[1:]]
child = os.posix_spawn(sys.executable, words, os.environ, file_actions=quiet)
_, status, usage = os.wait4(child, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def ran(*words: object, environment: dict[str, str] | None = None) -> Ran:
    """Run a command; its workers do not count as its memory."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-S", "-c", _STARTER, "-m", "ctrate_convert", *map(str, words)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{words[0]} ended with exit code {done.returncode}")
    return Ran(time.monotonic() - started, int(done.stdout) / 1024)


def made_at(work: Path, samples: int) -> SyntheticCtRate:
    shutil.rmtree(work, ignore_errors=True)
    return write_synthetic_ctrate(work / "ct", samples=samples, shape=(6, 5, 4), layout="flat")


def inputs_of(made: SyntheticCtRate, work: Path) -> list[object]:
    return [
        "--data_folder", made.data_folder, "--reports_file", made.reports_file,
        "--meta_file", made.meta_file, "--labels_file", made.labels_file,
        "--output_dir", work / "out",
    ]  # fmt: skip


def like_the_first(ledger: Ledger, index: int) -> ShardRecord:
    """Return the record of shard 0 as one of shard ``index``, with its keys."""
    template = ledger.record(0)
    plan, shard = ledger.planned[index]
    keys = [sample.key for sample in load_samples(ledger.dataset, plan, shard)]
    samples = tuple(
        one.model_copy(update={"key": key})
        for one, key in zip(template.samples, keys, strict=True)
        if isinstance(one, ConvertedSample)
    )
    return template.model_copy(update={"shard": index, "samples": samples})

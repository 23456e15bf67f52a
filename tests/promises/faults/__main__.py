"""Every call of every command made to fail in every way, in a shuffled order until time is up."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator

from tests.promises.faults.scenes import SCENES
from tests.promises.faults.strace import Fault
from tests.promises.faults.sweep import Sweep, take_turns


def until(end: float, faults: list[Fault]) -> Iterator[Fault]:
    for fault in faults:
        if time.monotonic() >= end:
            return
        yield fault


def main() -> int:
    """A line for each outcome, then what was tried of what there is; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.promises.faults", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0, help="shared by all commands")
    parser.add_argument("--every", action="store_true", help="however long it takes")
    parser.add_argument("--seed", type=int, default=0, help="of the order")
    parser.add_argument("--scene", choices=sorted(SCENES), action="append")
    given = parser.parse_args()
    scenes = given.scene or list(SCENES)
    share = float("inf") if given.every else given.seconds / len(scenes)
    findings = 0
    for name in scenes:
        with Sweep.of(name) as sweep:
            faults = sweep.every()
            random.Random(given.seed).shuffle(faults)
            came, found = take_turns(sweep, until(time.monotonic() + share, faults))
        tried = sum(came.values()) + len(found)
        sys.stdout.write(f"{name}: {tried:,} of {len(faults):,} faults, {len(found)} findings\n")
        for what, count in sorted(came.items()):
            sys.stdout.write(f"{count:8,}  {what}\n")
        for finding in found:
            sys.stdout.write(f"FOUND {finding}\n")
        sys.stdout.flush()
        findings += len(found)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())

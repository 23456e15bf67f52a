"""``python -m tests.promises.fuzz``."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

import tests.promises.fuzz
from tests.promises.fuzz.stage import Found
from tests.promises.fuzz.turns import TARGETS, one_turn, stages


def main() -> int:
    """Turn after turn until the time is up; 1 if anything was found."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.promises.fuzz", description=tests.promises.fuzz.__doc__
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0, help="the first turn's; each adds one")
    parser.add_argument("--target", choices=sorted(TARGETS), action="append")
    given = parser.parse_args()
    targets = given.target or list(TARGETS)
    came: Counter[str] = Counter()
    found: list[str] = []
    end = time.monotonic() + given.seconds
    seed = given.seed
    with stages() as made:
        while time.monotonic() < end:
            target = targets[seed % len(targets)]
            try:
                came[f"{target}: {one_turn(target, seed, made[target])}"] += 1
            except Found as error:
                found.append(str(error))
                sys.stderr.write(f"FOUND {error}\n")
            seed += 1
    for what, number in sorted(came.items()):
        sys.stdout.write(f"{number:8,}  {what}\n")
    sys.stdout.write(f"{seed - given.seed:8,}  turns, {len(found)} findings\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

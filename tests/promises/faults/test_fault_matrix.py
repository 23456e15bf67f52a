"""Each kind of call fails in each way, at its first, a middle and its last place, in each command.

``python -m tests.promises.faults`` tries every place.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.promises.faults.strace import CALLS, FAULTS, Fault
from tests.promises.faults.sweep import Sweep
from tests.support import needs

SEED = 1
PLACES = {"convert": 3, "workers": 2, "delete": 2, "trash": 2, "restore": 2, "repair": 2}
"""How many of the first, a middle and the last place."""

NEVER = {("restore", "link"), ("restore", "unlink")}
"""What a command does not do when all is well."""


@pytest.fixture(scope="module")
def sweep_of() -> Iterator[Callable[[str], Sweep]]:
    """One scene of a name, made when it is first asked for."""
    needs("strace", "strace", "-o", "/dev/null", "-P", "/", "true")
    made: dict[str, Sweep] = {}
    with ExitStack() as stack:

        def of(name: str) -> Sweep:
            if name not in made:
                made[name] = stack.enter_context(Sweep.of(name))
            return made[name]

        yield of


def turns(sweep: Sweep, call: str, places: int, faults: tuple[str, ...] = FAULTS) -> list[str]:
    """What came of each fault at ``places`` many of the three places."""
    chance = random.Random(f"{SEED} {call}")
    return [
        sweep.turn(fault) for how in faults for fault in sweep.chosen(call, how, places, chance)
    ]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("scene", PLACES)
def test_a_call_that_fails(sweep_of: Callable[[str], Sweep], scene: str, call: str) -> None:
    """It is told in the program's words and costs no source; the same command comes to the end."""
    came = turns(sweep_of(scene), call, PLACES[scene])
    if (scene, call) in NEVER:
        assert not came
        return
    missed = came.count("not met")
    assert len(came) >= len(FAULTS)
    assert missed <= len(came) // 3, f"{missed} of {len(came)} faults hit nothing"


@pytest.mark.parametrize("how", ["ENOSPC", "EIO", "EDQUOT"])
def test_a_write_of_blosc2_that_fails(sweep_of: Callable[[str], Sweep], how: str) -> None:
    """What compresses the arrays tells the same."""
    came = turns(sweep_of("b2nd"), "write", 3, (how,))
    assert came == ["exit code 5"] * 3


def test_no_write_of_blosc2_goes_missing(sweep_of: Callable[[str], Sweep]) -> None:
    """Whichever of its writes fails, told or not, no shard with a damaged frame is recorded."""
    sweep = sweep_of("b2nd")
    writes = [point for point in sweep.points("write") if point[0] == "pwrite64"]
    assert len(writes) > 10
    came = {sweep.turn(Fault(*point, "EDQUOT")) for point in writes}
    assert came == {"exit code 5", "exit code 0"}  # some are made once more by the next chunk


@pytest.mark.parametrize("how", ["EIO", "ESTALE"])
def test_a_source_that_cannot_be_read(sweep_of: Callable[[str], Sweep], how: str) -> None:
    """That sample fails and its source stays; the same command tries it again."""
    came = turns(sweep_of("convert"), "read", 3, (how,))
    assert "exit code 2, in a further shard" in came

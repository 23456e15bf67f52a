"""Read and restore the two equal files of a plan: the plan survives damage to one of them.

Generations of earlier versions have only ``plan.json`` and are read as well.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ctrate_convert.errors import DamageError
from ctrate_convert.store.durable import read_regular, replace
from ctrate_convert.store.records.base import parse, sha256_hex
from ctrate_convert.store.records.plan import Plan

PLAN_FILE = "plan.json"
PLAN_COPY_FILE = "plan.copy.json"


@dataclass(frozen=True)
class PlanFile:
    """One of the two files: its content, and its plan or the error that kept it from being read."""

    path: Path
    data: bytes
    found: Plan | DamageError | OSError

    @property
    def plan(self) -> Plan | None:
        """The plan if the file is sound, else None."""
        return self.found if isinstance(self.found, Plan) else None

    @property
    def is_missing(self) -> bool:
        """True if there is no such file."""
        return isinstance(self.found, FileNotFoundError)

    @property
    def reason(self) -> str:
        """The reason why the file holds no plan; empty if it holds one."""
        if isinstance(self.found, Plan):
            return ""
        if isinstance(self.found, DamageError):
            seen = f": seen {self.found.seen}, expected {self.found.expected}"
            return self.found.what + (seen if self.found.seen else "")
        return "is missing" if self.is_missing else f"cannot be read: {self.found.strerror}"


def load_plan(folder: Path) -> Plan:
    """Return the generation's plan from ``plan.json``, or from its copy if that is damaged.

    Raises:
        DamageError: both files are damaged, or the folder is not a generation.
        OSError: neither file can be read.
    """
    first = _read(folder / PLAN_FILE)
    if isinstance(first.found, NotADirectoryError):
        raise DamageError("not a generation of a plan", where=folder) from first.found
    if first.plan is not None:
        return first.plan
    second = _read(folder / PLAN_COPY_FILE)
    if second.plan is not None:
        return second.plan
    # Without a copy, a plan.json that cannot be read may still be sound: raise the read error.
    if second.is_missing and isinstance(first.found, OSError) and not first.is_missing:
        raise first.found
    what = f"the plan cannot be used, and its second copy {second.reason}"
    if not second.is_missing:
        what = f"both copies of the plan are damaged; {PLAN_COPY_FILE}: {second.reason}"
    raise DamageError(
        f"{what}; {PLAN_FILE}: {first.reason}",
        where=first.path,
        next_command="restore one of the two files from a copy; what is published and recorded "
        "is untouched",
    )


def plan_files(folder: Path) -> tuple[PlanFile, PlanFile]:
    """Return both files of a generation, ``plan.json`` first."""
    first = _read(folder / PLAN_FILE)
    return first, _read(folder / PLAN_COPY_FILE)


def restore_plan_files(folder: Path) -> list[Path]:
    """Replace a damaged or missing file of the two by the sound one, durably.

    Return the restored files. If the files hold two different plans, or neither is sound, nothing
    is changed.

    Raises:
        OSError: a file cannot be written.
    """
    first, second = plan_files(folder)
    sound, damaged = (second, first) if first.plan is None else (first, second)
    hold_two_plans = damaged.plan is not None and damaged.plan != sound.plan
    if sound.plan is None or hold_two_plans or first.data == second.data:
        return []
    replace(damaged.path, sound.data)
    return [damaged.path]


_MOST_KEPT = 64
_sound: dict[str, Plan] = {}
"""The plans that this process has found sound, by the hash of their file: a command asks for its
plans several times, and each time reads their bytes and checks them."""


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from the objects that the block makes: a plan is no garbage.

    It would look at each shard of a large plan again and again, now and later. A plan that nobody
    uses any more is freed all the same, since no object of it refers to itself.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()


def _read(path: Path) -> PlanFile:
    data = b""
    try:
        data = read_regular(path)
        # Equal bytes hold the same plan: a large one is not parsed a second time.
        digest = sha256_hex(data)
        if digest in _sound:
            return PlanFile(path, data, _sound[digest])
        with _no_collection():
            plan = parse(Plan, data, path)
    except (DamageError, OSError) as error:
        return PlanFile(path, data, error)
    seen = plan.content_id()
    if seen == plan.plan_id:
        if len(_sound) >= _MOST_KEPT:
            _sound.clear()
        _sound[digest] = plan
        return PlanFile(path, data, plan)
    changed = DamageError(
        "the plan was changed after it was written", where=path, seen=seen, expected=plan.plan_id
    )
    return PlanFile(path, data, changed)

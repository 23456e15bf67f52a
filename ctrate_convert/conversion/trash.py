"""The trash: proven sources are moved aside instead of deleted, on their own file system.

Moved there by the gate, under the same proof. The journal tells where each file went.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ctrate_convert.durable import fsync_open_directory, make_directories, open_beneath
from ctrate_convert.errors import SettingsError
from ctrate_convert.schemas.journal import JournalLine
from ctrate_convert.schemas.plan import Plan
from ctrate_convert.schemas.record import SourceFingerprint


def place_in_trash(shard: int, source: str) -> str:
    """Where the source of a sample in ``shard`` goes, relative to the trash."""
    return f"shard-{shard:06d}/{source}"


def trash_of(line: JournalLine, shard: int) -> Path | None:
    """The trash folder that the journal's line tells of; None where it is no such place.

    A journal may have been tampered with: only the place that the gate would choose is believed.
    """
    place = "/" + place_in_trash(shard, line.source)
    root = line.trash.removesuffix(place)
    return Path(root) if line.trash.endswith(place) and Path(root).is_absolute() else None


def is_in_trash(trash: Path, place: str, source: SourceFingerprint) -> bool:
    """Whether the very file that was read lies at ``place`` now, reached through no link.

    If so it lies there durably: a killed process may not have come to that.

    Raises:
        OSError: that it does cannot be made durable.
    """
    with contextlib.ExitStack() as stack:
        try:
            directory, name = stack.enter_context(open_in_trash(trash, place))
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except (OSError, ValueError):
            return False
        if not is_the_file(status, source):
            return False
        fsync_open_directory(directory)
        return True


@contextlib.contextmanager
def open_in_trash(trash: Path, place: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """The same as `open_beneath`, of a trash that no link leads to, nor leads out of.

    Raises:
        OSError: a component is missing, or is a link.
        ValueError: ``place`` is no such path, or ``trash`` is reached through a link.
    """
    if trash.resolve() != trash:
        raise ValueError(f"the trash {trash} is reached through a link")
    with open_beneath(trash, place, make=make) as (directory, name):
        if Path(os.readlink(f"/proc/self/fd/{directory}")) != (trash / place).parent:
            raise ValueError(f"the trash {trash} was moved away")
        yield directory, name


def is_the_file(status: os.stat_result, source: SourceFingerprint) -> bool:
    """By everything that a rename leaves as it was."""
    now = (status.st_ino, status.st_size, status.st_mtime_ns)
    then = (source.inode, source.size_bytes, source.mtime_ns)
    return stat.S_ISREG(status.st_mode) and now == then


def last_lines(journal: Sequence[JournalLine]) -> dict[str, JournalLine]:
    """Each sample's newest line that tells where its source is; the reasons for keeping do not."""
    return {line.key: line for line in journal if line.event not in ("kept", "intent")}


def prepare_trash_for(trash: Path, plans: Iterable[Plan], out: Path) -> None:
    """The same as `prepare_trash`, for the data folders of all ``plans``."""
    for folder in sorted({plan.settings.data_folder for plan in plans}):
        prepare_trash(trash, Path(folder), out)


def prepare_trash(trash: Path, data_folder: Path, out: Path) -> None:
    """Make the folder if it is missing, and refuse one that cannot serve.

    Raises:
        SettingsError: it lies in the data folder or in ``out``, or on another file system.
        OSError: it cannot be made.
    """
    trash, data_folder, out = trash.resolve(), data_folder.resolve(), out.resolve()
    for inside, what in ((data_folder, "the data folder"), (out, "the dataset directory")):
        if trash.is_relative_to(inside):
            raise SettingsError(
                f"the trash lies in {what}",
                where=trash,
                expected=f"a folder outside {inside}, on the same file system",
            )
    there = next(folder for folder in (trash, *trash.parents) if folder.exists())
    if there.stat().st_dev != data_folder.stat().st_dev:
        raise SettingsError(
            "the trash is on another file system than the sources, so that moving would copy",
            where=trash,
            expected=f"a folder on the file system of {data_folder}",
        )
    make_directories(trash)

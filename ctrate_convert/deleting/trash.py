"""The trash: a folder for proven sources that are moved instead of deleted.

It lies on the sources' own file system. The gate moves them there after the same comparison. The
journal says where each file went.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctrate_convert.deleting.let_go import Equal, require_proof
from ctrate_convert.errors import SettingsError
from ctrate_convert.store.durable import (
    fsync_open_directory,
    make_directories,
    move_if_free,
    open_beneath,
)
from ctrate_convert.store.fresh import FreshStatus, fresh_status
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.journal import JournalLine
from ctrate_convert.store.records.plan import Plan
from ctrate_convert.store.records.record import SourceFingerprint


@dataclass(frozen=True)
class Mover:
    """The step that moves one proven source to its place in a trash outside ``forbidden``."""

    trash: Path
    place: str
    forbidden: tuple[Path, ...]

    def take(self, proof: Equal) -> str:
        """Move the file; return why it could not be moved, or an empty string.

        Reasons are another file system and a name that is taken.
        """
        require_proof(proof)
        for folder in self.forbidden:
            if self.trash.is_relative_to(folder.resolve()):
                return f"the trash {self.trash} lies in {folder}"
        with contextlib.ExitStack() as stack:
            try:
                there, new_name = stack.enter_context(
                    open_in_trash(self.trash, self.place, make=True)
                )
            except (OSError, ValueError) as error:  # else taken for a missing source
                return f"the trash {self.trash} cannot be used: {error}"
            moved = move_if_free(proof.name, proof.directory, new_name, there)
        return "" if moved else f"its place in the trash is taken: {self.trash / self.place}"


@dataclass(frozen=True)
class Identity:
    """The attributes that a rename keeps: by them a moved file is recognised."""

    inode: int
    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result | FreshStatus) -> Identity:
        """Return the identity in a file's status."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)

    @classmethod
    def recorded(cls, source: SourceFingerprint) -> Identity:
        """Return the identity of the source as it was converted."""
        return cls(source.inode, source.size_bytes, source.mtime_ns)


def identity_at(line: JournalLine, source: SourceFingerprint) -> Identity:
    """Return the identity of the file that ``line`` moved, from the record if the line has none.

    Old journals have no inode in their lines.
    """
    if line.inode:
        return Identity(line.inode, line.size_bytes, line.mtime_ns)
    return Identity.recorded(source)


def place_in_trash(shard: int, source: str) -> str:
    """Return where the source of a sample in ``shard`` goes, relative to the trash."""
    return f"shard-{shard:06d}/{source}"


def trash_of(line: JournalLine, shard: int) -> Path | None:
    """Return the trash folder that the journal's line names; None if the gate would not choose it.

    A journal may have been tampered with: only a place that the gate would choose is believed.
    """
    place = "/" + place_in_trash(shard, line.source)
    root = line.trash.removesuffix(place)
    return Path(root) if line.trash.endswith(place) and Path(root).is_absolute() else None


def is_in_trash(trash: Path, place: str, moved: Identity) -> bool:
    """Return True if the very file that was moved lies at ``place`` now, reached through no link.

    Then fsync its folder as well: a process that moved it may have been killed before that.

    Raises:
        OSError: the file is there, and that cannot be made durable.
    """
    with contextlib.ExitStack() as stack:
        try:
            directory, name = stack.enter_context(open_in_trash(trash, place))
            status = fresh_status(name, directory)
        except (OSError, ValueError):
            return False
        if not is_the_file(status, moved):
            return False
        fsync_open_directory(directory)
        return True


def lies_in_trash(line: JournalLine, shard: int, source: SourceFingerprint) -> bool:
    """Return True if the file that ``line`` moved, or meant to move, is in its trash now."""
    trash = trash_of(line, shard)
    place = place_in_trash(shard, source.source)
    return trash is not None and is_in_trash(trash, place, identity_at(line, source))


@contextlib.contextmanager
def open_in_trash(trash: Path, place: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """Open a place in the trash as `open_beneath` does; no link may lead to it or out of it.

    Raises:
        OSError: a component is missing, or is a link.
        ValueError: ``place`` is no such path, or ``trash`` is reached through a link.
    """
    if trash.resolve() != trash:
        raise ValueError(f"the trash {trash} is reached through a link")
    with open_beneath(trash, place, make=make) as (directory, name):
        # Somebody may have renamed the trash between the check and the opening: the kernel knows
        # the path of the open folder.
        if Path(os.readlink(f"/proc/self/fd/{directory}")) != (trash / place).parent:
            raise ValueError(f"the trash {trash} was moved away")
        yield directory, name


def is_the_file(status: FreshStatus, moved: Identity) -> bool:
    """Return True if ``status`` is that of the regular file that was moved."""
    return stat.S_ISREG(status.st_mode) and Identity.of(status) == moved


def last_lines(journal: Sequence[JournalLine]) -> dict[str, JournalLine]:
    """Return by key the newest line that places its source; lines with mere reasons are skipped."""
    silent = ("kept", "undecided", "intent")
    return {line.key: line for line in journal if line.event not in silent}


def prepare_trash_for(trash: Path, plans: Iterable[Plan], out: Path) -> None:
    """Prepare the trash for the data folders of all ``plans``, as `prepare_trash` does."""
    for folder in sorted({plan.settings.data_folder for plan in plans}):
        prepare_trash(trash, Path(folder), out)


def prepare_trash(trash: Path, data_folder: Path, out: Path) -> None:
    """Make the trash folder if it is missing; refuse a folder that cannot serve.

    Raises:
        SettingsError: `require_trash` refuses it.
        OSError: it cannot be made.
    """
    require_trash(trash, data_folder, out)
    make_directories(trash.resolve())


def require_trash(trash: Path, data_folder: Path, out: Path) -> None:
    """Refuse a folder that cannot serve; make nothing, since nobody may have been asked yet.

    Raises:
        SettingsError: it lies in the data folder or in ``out``, or on another file system; or it is
            a dataset directory, or lies in one.
    """
    trash, data_folder, out = trash.resolve(), data_folder.resolve(), out.resolve()
    for inside, what in ((data_folder, "the data folder"), (out, "the dataset directory")):
        if trash.is_relative_to(inside):
            raise SettingsError(
                f"the trash lies in {what}",
                where=trash,
                expected=f"a folder outside {inside}, on the same file system",
            )
    _refuse_a_dataset(trash)
    there = next(folder for folder in (trash, *trash.parents) if folder.exists())
    # This finds most cases before anybody is asked. Where a rename fails all the same, the gate
    # keeps the source.
    if there.stat().st_dev != data_folder.stat().st_dev:
        raise SettingsError(
            "the trash is on another file system than the sources, so that moving would copy",
            where=trash,
            expected=f"a folder on the file system of {data_folder}",
        )


def _refuse_a_dataset(trash: Path) -> None:
    own = Dataset(trash)
    above = [folder for folder in trash.parents if _is_folder(Dataset(folder).plans)]
    if os.path.lexists(own.run) or os.path.lexists(own.manifest):
        what, where = "the trash is a dataset directory", trash
    elif above:
        what, where = "the trash lies in a dataset directory", above[0]
    else:
        return
    expected = "a folder for sources alone, on the same file system"
    raise SettingsError(what, where=where, expected=expected)


def _is_folder(path: Path) -> bool:
    """Return True if it is a folder; False too if nobody may look."""
    try:
        return path.is_dir()
    except OSError:
        return False

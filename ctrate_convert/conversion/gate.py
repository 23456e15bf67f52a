"""The gate: the one place that decides whether a source file may be deleted, and deletes it.

A file goes only against a `DeletionProof`, and only `prove` makes one. Shard, record and source are
looked at again right before the unlink, relative to an open directory, following no link. Any
doubt means: keep the source.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from ctrate_convert.conversion.proof import DeletionProof
from ctrate_convert.conversion.readback import FileIdentity
from ctrate_convert.conversion.source_file import GONE, doubt_about_file
from ctrate_convert.conversion.trash import open_in_trash, place_in_trash
from ctrate_convert.durable import fsync_open_directory, move_if_free, open_beneath
from ctrate_convert.errors import RefusedError


def unlink_source(proof: DeletionProof) -> str | None:
    """Delete the proven source, after one more look at everything; returns why not, if not.

    That is `GONE` where the source cannot be found.

    Raises:
        OSError: whether the source is gone cannot be told. Its intent must stay open.
    """
    return _take_away(proof, lambda directory, name: os.unlink(name, dir_fd=directory))


def trash_source(proof: DeletionProof, trash: Path) -> str | None:
    """Move the proven source into ``trash`` instead, after the same look at everything.

    Returns why not, if not: another file system or a name that is taken, too.

    Raises:
        OSError: whether the source is gone, and its move durable, cannot be told.
    """
    place = place_in_trash(proof.shard_index, proof.source.source)

    def move(directory: int, name: str) -> str | None:
        for folder in (proof.data_folder, proof.out):
            if trash.is_relative_to(folder.resolve()):
                return f"the trash {trash} lies in {folder}"
        with contextlib.ExitStack() as stack:
            try:
                there, new_name = stack.enter_context(open_in_trash(trash, place, make=True))
            except (OSError, ValueError) as error:  # which says nothing of the source
                return f"the trash {trash} cannot be used: {error}"
            moved = move_if_free(name, directory, new_name, there)
        return None if moved else f"its place in the trash is taken: {trash / place}"

    return _take_away(proof, move)


def _take_away(proof: DeletionProof, take: Callable[[int, str], str | None]) -> str | None:
    if type(proof) is not DeletionProof:
        raise RefusedError("a source is deleted only against a proof")
    with contextlib.ExitStack() as stack:
        try:
            directory, name = stack.enter_context(
                open_beneath(proof.data_folder, proof.source.source)
            )
            doubt = _doubt_about_published(proof) or doubt_about_file(
                proof.source, proof.out, directory, name
            )
            if doubt:
                return doubt
        except FileNotFoundError:
            return GONE
        except (OSError, ValueError) as error:
            return f"its path cannot be followed safely: {error}"
        try:
            return take(directory, name)
        except FileNotFoundError:
            return GONE
        except OSError as error:
            # A call may fail after it did its work: kept is only what is seen to be there.
            if not _is_there(directory, name):
                raise
            return f"it could not be taken away: {error}"


def _is_there(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return True


def _doubt_about_published(proof: DeletionProof) -> str | None:
    for what, path, identity in (
        ("shard", proof.shard, proof.shard_identity),
        ("record", proof.record, proof.record_identity),
    ):
        try:
            status = os.stat(path, follow_symlinks=False)
        except OSError as error:
            return f"its {what} cannot be seen now: {error.strerror}"
        if not stat.S_ISREG(status.st_mode) or FileIdentity.of(status) != identity:
            return f"its {what} is not the file that was verified any more"
    return None


def settle_unlinks(proofs: Iterable[DeletionProof]) -> None:
    """Make it durable that these sources are gone: no power loss brings one back.

    Raises:
        OSError: that cannot be done; the journal must not say that they are deleted.
    """
    folders = {(proof.data_folder, Path(proof.source.source).parent): proof for proof in proofs}
    for proof in folders.values():
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            open_beneath(proof.data_folder, proof.source.source) as (directory, _),
        ):
            fsync_open_directory(directory)

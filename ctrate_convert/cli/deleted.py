"""Say how many sources a command has deleted, or moved to a trash, and how many not."""

from __future__ import annotations

from ctrate_convert.cli import show
from ctrate_convert.deleting.outcome import Deletion


def print_deleted(deletion: Deletion) -> None:
    """Print how many sources were deleted, and how many were moved to a trash."""
    if deletion.deleted_files or not deletion.trashed_files:
        show.line(
            f"Deleted {show.count(deletion.deleted_files, 'source file')}, "
            f"{show.size(deletion.freed_bytes)} freed."
        )
    if deletion.trashed_files:
        show.line(
            f"Moved {show.count(deletion.trashed_files, 'source file')} to the trash, "
            f"{show.size(deletion.trashed_bytes)}; nothing is freed until you empty "
            f"{' and '.join(sorted(deletion.trashes))}."
        )


def print_not_deleted(files: int) -> None:
    """Print how many files a deletion left; every command that deletes says it in these words."""
    if files:
        were = "was" if files == 1 else "were"
        show.line(f"{show.count(files, 'file')} {were} NOT deleted.")

"""Print the damaged files that a command met, after it did its work with the rest."""

from __future__ import annotations

from collections.abc import Sequence

from ctrate_convert.cli import show
from ctrate_convert.cli.folding import folded
from ctrate_convert.errors import ExitCode
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.damage import Damage
from ctrate_convert.store.set_aside import aside_notes


def print_damage(damage: Sequence[Damage]) -> None:
    """Print one line for each damaged part; print nothing if there is none."""
    if damage:
        show.line(f"DAMAGE, {show.count(len(damage), 'finding')}; all else went on:")
    show.some(folded("", ((one.shard, one.what) for one in damage), "file"))


def print_aside(dataset: Dataset) -> None:
    """Print one note for each file that was set aside."""
    for note in aside_notes(dataset):
        show.line(f"Note: {note}")


def with_damage(code: int, damage: Sequence[Damage]) -> int:
    """Return `ExitCode.DAMAGE` (3) if there is damage, unless the command was interrupted."""
    return ExitCode.DAMAGE if damage and code != ExitCode.INTERRUPTED else code

"""Write a plan's lines to a hidden file as they come, and keep only a few numbers of each."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable
from pathlib import Path

from ctrate_convert.planning.samples.lines import Form, Lines
from ctrate_convert.planning.samples.notes import HeaderNotes
from ctrate_convert.store.durable import PartialFile
from ctrate_convert.store.records.base import parse
from ctrate_convert.store.records.plan import PlannedSample, PlanSettings


class StagedLines:
    """All lines of a plan that is being made, in the plan's order.

    They are in ``file``, which becomes ``samples.jsonl`` once the plan is published. The numbers
    are those of `Lines`.
    """

    def __init__(self, file: PartialFile) -> None:
        self.file = file
        self.ends = array("q")
        self.source_bytes = array("q")
        self.volume_bytes = array("q")
        self.array_bytes = array("q")
        self.beside_bytes = array("q")
        self.turned_bytes = array("q")
        self.voxels = array("q")
        self.forms: list[Form] = []
        self.notes = HeaderNotes()
        self._known: dict[Form, Form] = {}

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def size_bytes(self) -> int:
        """The size of all lines."""
        return self.ends[-1] if self.ends else 0

    def add(self, lines: Lines) -> None:
        """Write the lines that follow."""
        end = self.size_bytes
        self.file.write(lines.data)
        for size_bytes in lines.line_bytes:
            end += size_bytes
            self.ends.append(end)
        self.source_bytes.extend(lines.source_bytes)
        self.volume_bytes.extend(lines.volume_bytes)
        self.array_bytes.extend(lines.array_bytes)
        self.beside_bytes.extend(lines.beside_bytes)
        self.turned_bytes.extend(lines.turned_bytes)
        self.voxels.extend(lines.voxels)
        # One object for all samples of a form: what comes from another process is its own.
        self.forms.extend(map(self._known.setdefault, lines.forms, lines.forms))
        self.notes.extend(lines.notes)

    def offset(self, index: int) -> int:
        """Return where line ``index`` begins; with the number of lines, where the last one ends."""
        return self.ends[index - 1] if index else 0

    def data(self, part: range) -> bytes:
        """Return the lines of the samples in ``part``."""
        start, end = self.offset(part.start), self.offset(part.stop)
        return os.pread(self.file.descriptor, end - start, start)

    def sample(self, index: int) -> PlannedSample:
        """Return one sample."""
        line = self.data(range(index, index + 1))
        return parse(PlannedSample, line, Path(self.file.path))


def staged(
    samples: Iterable[PlannedSample], settings: PlanSettings, file: PartialFile
) -> StagedLines:
    """Return the lines of samples that were planned before, or have been described already."""
    found = StagedLines(file)
    for sample in samples:
        lines = Lines()
        lines.add(sample, settings)
        found.add(lines)
    return found

"""Tables of what a run measured: as text for the terminal, as Markdown for RESULTS.md."""

from __future__ import annotations

import datetime
import importlib.metadata
import math
import os
import platform
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")

_PACKAGES = ("numpy", "isal", "numkong", "blake3", "blosc2", "ctrate-convert")


@dataclass(frozen=True)
class Target:
    """What is asked of a figure: from ``low`` to ``high``, in ``unit``."""

    what: str
    low: float = -math.inf
    high: float = math.inf
    unit: str = "×"

    def verdict(self, seen: float) -> str:
        """``reached`` or ``NOT reached``."""
        return "reached" if self.low <= seen <= self.high else "NOT reached"

    def note(self, seen: float) -> str:
        """What was asked, what was measured, and the verdict."""
        return f"{self.what}: {self._asked()} is asked, {self._as_text(seen)}: {self.verdict(seen)}"

    def _asked(self) -> str:
        if math.isinf(self.high):
            return f"≥ {self._as_text(self.low)}"
        if math.isinf(self.low):
            return f"≤ {self._as_text(self.high)}"
        return f"{self._as_text(self.low)} to {self._as_text(self.high)}"

    def _as_text(self, value: float) -> str:
        figure = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
        return figure + self.unit


@dataclass(frozen=True)
class Table:
    """One table with a title and the sentences that its figures need."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = field(default_factory=tuple)

    def as_text(self) -> str:
        """Aligned columns; all but the first to the right."""
        widths = [max(len(row[i]) for row in [self.header, *self.rows]) for i in self._columns]
        lines = ["", self.title, "─" * len(self.title)]
        for row in [self.header, *self.rows]:
            cells = [
                row[i].ljust(widths[i]) if i == 0 else row[i].rjust(widths[i])
                for i in self._columns
            ]
            lines.append("  ".join(cells).rstrip())
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    def as_markdown(self) -> str:
        """A section with a table and its notes as a list."""
        rules = ["---" if i == 0 else "--:" for i in self._columns]
        rows = ["| " + " | ".join(row) + " |" for row in [self.header, rules, *self.rows]]
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([f"## {self.title}", "", *rows, "", *notes]).rstrip()

    @property
    def _columns(self) -> range:
        return range(len(self.header))


def machine() -> list[str]:
    """What the figures depend on; nothing that tells whose machine it is."""
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        f"{_cpu_model()}, {len(os.sched_getaffinity(0))} cores, {memory_gib:.0f} GiB of memory, "
        f"Linux {platform.release().split('-')[0]}",
        f"Python {platform.python_version()} (zlib {zlib.ZLIB_RUNTIME_VERSION}), {packages}",
    ]


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def load() -> float:
    """How busy the machine is, by the last minute's load."""
    return os.getloadavg()[0]


def load_average() -> str:
    """The same as a text."""
    return f"{load():.1f}"


def write_results(tables: Sequence[Table], facts: Sequence[str], suite: str) -> None:
    """Write RESULTS.md anew from this run's tables; those of one suite into a file of its own."""
    path = RESULTS if suite == "all" else RESULTS.with_name(f"RESULTS-{suite}.md")
    command = f"python -m benchmarks {suite} --write"
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    lines = [
        "# Results",
        "",
        f"Written by `{command}` on {today}; every figure was measured by that run.",
        "",
        *(f"- {fact}" for fact in [*machine(), *facts]),
        "",
    ]
    sections = [table.as_markdown() for table in tables]
    path.write_text("\n".join(lines) + "\n" + "\n\n".join(sections) + "\n", encoding="utf-8")

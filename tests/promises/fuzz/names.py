"""The names that a source may bear, and what others put under them."""

from __future__ import annotations

import stat
from collections import Counter
from pathlib import Path

from ctrate_convert.store.presence import ASIDE_SUFFIX, PROVEN_SUFFIX

HIDDEN = (ASIDE_SUFFIX, PROVEN_SUFFIX)
PLANTED = b"somebody's"
"""What others put under the hidden name of a source."""

_KINDS = {stat.S_IFLNK: "link", stat.S_IFIFO: "FIFO", stat.S_IFDIR: "folder"}


def sources_below(folder: Path) -> list[Path]:
    """All files that bear the name of a source, or one that a deletion gives it for a while."""
    names = ("*.npz", *(f"*{suffix}" for suffix in HIDDEN))
    found = [path for name in names for path in folder.rglob(name)]
    return [path for path in found if stat.S_ISREG(path.lstat().st_mode)]


def own_stem(path: Path) -> str:
    """The stem of a source's own name."""
    name = path.name
    for suffix in HIDDEN:
        name = name.removeprefix(".").removesuffix(suffix) if name.endswith(suffix) else name
    return name.removesuffix(".npz")


def foreign_below(folder: Path) -> Counter[str]:
    """What stands among the sources and is none: links, FIFOs, folders, others' files."""
    found: Counter[str] = Counter()
    for path in folder.rglob("*"):
        kind = stat.S_IFMT(path.lstat().st_mode)
        if kind == stat.S_IFREG and path.read_bytes() == PLANTED:
            found["file"] += 1
        elif kind != stat.S_IFREG and path.name.endswith(HIDDEN):
            found[_KINDS[kind]] += 1
    return found

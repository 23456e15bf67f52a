"""One source beside an output, for `let_go` alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from ctrate_convert.deleting.let_go import Outcome, let_go
from ctrate_convert.store import durable
from ctrate_convert.store.presence import aside_name, proven_name

NAME = "train_1_a_1.npz"
CONTENT = b"a volume" * 1000


@dataclass
class Scene:
    """One source in a data folder, beside an output."""

    folder: Path
    out: Path
    name: str = NAME
    said: list[int] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.folder / self.name

    @property
    def aside(self) -> Path:
        return self.path.with_name(aside_name(self.path.name))

    @property
    def proven(self) -> Path:
        return self.path.with_name(proven_name(self.path.name))

    def go(self, compare: Callable[[int], str] | None = None, **more: Any) -> Outcome:
        facts = {"out": self.out, "last_look": lambda: "", **more}
        return let_go(self.folder, self.name, compare=compare or self.equal, **facts)

    def equal(self, descriptor: int) -> str:
        self.said.append(descriptor)
        return ""

    def names(self) -> set[str]:
        return {path.name for path in self.path.parent.iterdir() if not path.is_dir()}


@pytest.fixture(params=[True, False], ids=["renameat2", "link, then unlink"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """A source on a file system that renames in one step, and on one that does not, like NFS."""
    scene = Scene(tmp_path / "data", tmp_path / "out")
    for folder in (scene.folder, scene.out):
        folder.mkdir()
    scene.path.write_bytes(CONTENT)
    with mock.patch.object(durable, "_renameat2", durable._renameat2 if request.param else None):
        yield scene

"""Imports point down, reading stands alone, and no folder grows too large to look through."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import ctrate_convert
from tools.imports import PACKAGE, closure, graph, modules

ROOT = Path(__file__).parents[2]

LAYERS = (
    "store", "formats", "looking", "views", "reading", "sources", "shards", "exporting", "deleting",
    "planning", "running", "checking", "reporting", "cluster", "synthetic", "cli",
)  # fmt: skip
"""From the ground up: a module imports from its own folder and from those before it."""

READING = ("ctrate_convert", "reading", "views", "looking", "formats", "store", "errors")
"""All that reading may load: nothing that converts, plans, deletes or submits."""

WRITERS = frozenset(LAYERS[6:]) | {"sources"}


def layer(module: str) -> int:
    part = module.split(".")[1] if "." in module else ""
    if part in ("", "errors"):
        return -1  # the package itself loads its exports when they are asked for
    return LAYERS.index(part) if part in LAYERS else len(LAYERS)


def test_imports_point_down() -> None:
    up = [
        f"{name} imports {other}"
        for name, others in graph(ROOT).items()
        for other in others
        if layer(other) > layer(name)
    ]
    assert up == []


def test_no_module_imports_itself_in_the_end() -> None:
    imports = graph(ROOT)
    circles = [
        name
        for name, others in imports.items()
        if any(name in closure(imports, other) for other in others)
    ]
    assert circles == []


def test_reading_imports_nothing_of_the_writer() -> None:
    imports = graph(ROOT)
    for entry in ("volumes", "pipeline", "decoder"):
        parts = {
            name.split(".")[1]
            for name in closure(imports, f"{PACKAGE}.reading.{entry}")
            if "." in name
        }
        assert parts <= set(READING), entry


def test_the_exports_load_nothing_of_the_writer() -> None:
    """As Python sees it: `import ctrate_convert` and all that the README reads with."""
    code = (
        "import sys, ctrate_convert as c; c.Volumes, c.open_dataset, c.decoder;"
        "print(*[m for m in sys.modules if m.startswith('ctrate_convert.')])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[1] for name in told.stdout.split()}
    assert "reading" in loaded
    assert not loaded & WRITERS


def test_every_export_is_there() -> None:
    for name in ctrate_convert.__all__:
        assert getattr(ctrate_convert, name) is not None
    assert issubclass(ctrate_convert.SettingsError, ctrate_convert.CtrateError)
    with pytest.raises(AttributeError):
        _ = ctrate_convert.nonsense


def test_no_folder_has_more_than_seventeen_files() -> None:
    """But for the command line, where each command is a file."""
    folders = Counter(path.parent for path in modules(ROOT).values())
    large = [path.name for path, number in folders.items() if number > 17 and path.name != "cli"]
    assert large == []


def test_status_loads_no_arrays_and_no_tables() -> None:
    """It looks at thousands of tasks, often on a login node: numpy and pandas take 60 MB."""
    code = "import sys, ctrate_convert.cli.status; print(*{*sys.modules} & {'numpy', 'pandas'})"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == []

"""docs/json.md lists every field that ``--json`` prints: who changes one changes the page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ctrate_convert.cli.show import JSON_SCHEMA_NUMBER
from ctrate_convert.synthetic import NPZ_KINDS, write_synthetic_ctrate
from tests.support import plan_words, run_here

PAGE = Path(__file__).parents[2] / "docs" / "json.md"

BY_NAME = re.compile(
    r"(.*\.)?(excluded|totals|intensities|predicted_intensities|unrecorded_lists|reports|ended"
    r"|failed_shards|labels|plans|repairs|table_sha256|folder_inodes|scheduler|without_copy)"
)
"""Objects whose keys are data: states, reasons, names of files."""


def fields(value: Any, path: str = "") -> Iterator[str]:
    """The paths of all values; ``*`` stands for keys that are data, ``[]`` for places in a list."""
    if isinstance(value, Mapping):
        by_name = path and BY_NAME.fullmatch(path)
        for key, item in value.items():
            name = "*" if by_name else key
            yield from fields(item, f"{path}.{name}" if path else name)
        if by_name:
            yield path
    elif isinstance(value, list):
        yield f"{path}[]"
        for item in value:
            yield from fields(item, f"{path}[]")
    else:
        yield path


def listed() -> dict[str, set[str]]:
    """The page's fields by command."""
    found = {}
    for block in re.finditer(r"^## `(\w+)`\n\n```\n(.*?)```", PAGE.read_text(), re.M | re.S):
        found[block[1]] = set(block[2].split())
    return found


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What every command that needs no Slurm prints, on its way from a plan to an export."""
    folder = tmp_path_factory.mktemp("json")
    made = write_synthetic_ctrate(
        folder / "in",
        samples=12,
        shape=(12, 10, 8),
        faults=("corrupt", "excluded", "duplicate"),
        kinds=(*NPZ_KINDS, "bare"),
    )
    out, trash = folder / "out", folder / "trash"
    found: dict[str, set[str]] = {}

    def give(command: str, *words: object) -> None:
        facts = run_here(command, *words, "--json").json()
        assert facts["schema_number"] == JSON_SCHEMA_NUMBER
        name = "error" if "error" in facts else command
        for one in facts.get("generations", [facts]):
            found.setdefault(name, set()).update(fields(one))

    planned = plan_words(made, out, "--exclude_file", made.exclude_file, "--delete_source_files")
    give("status", folder / "nowhere")
    give(str(planned[0]), *planned[1:])
    give("run", out, "--keep_source_files", "--num_workers", 1)
    give("delete", out, "--dry_run", "--copies", folder / "in")
    give("delete", out, "--yes", "--trash", trash)
    for command in ("status", "history", "report", "merge", "audit"):
        give(command, out)
    give("restore", out)
    give("verify", out, "--full", "--check_precision")
    give("export", out, folder / "again", "--all")
    give("export", out, folder / "again", "--all")
    give("export", out, folder / "look", "--all", "--as", "nifti")
    give("export", out, folder / "for-wids", "--index", "wids")
    give("doctor", out)
    give("recipes")
    give("plan", "--view", "ctclip", "--from", out, "--output_dir", folder / "views")
    give("verify", folder / "views")
    give("logs", out, 0)
    return found


def test_the_page_lists_what_is_printed(seen: dict[str, set[str]]) -> None:
    """Nothing is printed that the page does not list."""
    page = listed()
    assert seen.keys() <= page.keys()
    for command, paths in seen.items():
        assert paths - page[command] == set(), command


def test_nothing_is_listed_that_is_not_printed(seen: dict[str, set[str]]) -> None:
    """Every field of the page was seen here."""
    for command, paths in listed().items():
        assert paths - seen[command] == set(), command


def test_the_page_names_the_schema() -> None:
    assert f"`schema_number` is {JSON_SCHEMA_NUMBER}" in PAGE.read_text()

"""``--files_from``: the listed files are planned, judged as the walk would judge them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctrate_convert.errors import ExitCode
from ctrate_convert.store.layout import Dataset
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import plan_words, run_cli

Make = Callable[..., SyntheticCtRate]


def lines_of(out: Path, generation: int = 0) -> list[Any]:
    path = Dataset(out).plan(generation) / "samples.jsonl"
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def plan(made: SyntheticCtRate, out: Path, *lines: object) -> Any:
    listed = made.data_folder.parent / "files.txt"
    listed.write_text("".join(f"{line}\n" for line in lines))
    done = run_cli(*plan_words(made, out, "--probe", 0, "--files_from", listed, "--json"))
    assert done.code == ExitCode.DONE, done.text
    return done.json()


def test_a_list_of_all_gives_the_plan_of_the_walk(make_ctrate: Make, tmp_path: Path) -> None:
    """The same samples in the same bytes, in whatever order and form the list names them."""
    made = make_ctrate(9)
    done = run_cli(*plan_words(made, tmp_path / "walked", "--probe", 0))
    assert done.code == ExitCode.DONE, done.text
    relative = [path.relative_to(made.data_folder) for path in made.sources.values()]
    forms: list[object] = [*reversed(relative[:3]), *(f"./{one}" for one in relative[3:6])]
    forms += [made.data_folder / one for one in relative[6:]]
    told = plan(made, tmp_path / "listed", *forms, relative[0], "", "tables/train_reports.csv")
    assert told["volumes_found"] == 9
    walked, listed = (
        (Dataset(tmp_path / name).plan(0) / "samples.jsonl").read_bytes()
        for name in ("walked", "listed")
    )
    assert walked == listed


def test_what_is_not_listed_is_left_for_later(make_ctrate: Make, tmp_path: Path) -> None:
    """It is left out by name, and a plan without the list adds it."""
    made = make_ctrate(5)
    first, *others = made.keys
    told = plan(made, tmp_path / "out", made.sources[first])
    assert [one["key"] for one in lines_of(tmp_path / "out")] == [first]
    left_out = {one["key"]: one for one in told["excluded"]}
    assert {left_out[key]["reason"] for key in others} == {"no_volume"}
    assert "--files_from names no such NPZ file" in left_out[others[0]]["detail"]
    done = run_cli(*plan_words(made, tmp_path / "out", "--probe", 0))
    assert done.code == ExitCode.DONE, done.text
    assert [one["key"] for one in lines_of(tmp_path / "out", 1)] == others


def test_a_missing_file_is_named(make_ctrate: Make, tmp_path: Path) -> None:
    """A list may be older than the folder: what is gone costs a note."""
    made = make_ctrate(4)
    gone = made.keys[1]
    made.sources[gone].unlink()
    told = plan(made, tmp_path / "out", *made.sources.values(), "gone/train_99_a_1.npz")
    assert [one["key"] for one in lines_of(tmp_path / "out")] == [
        key for key in made.keys if key != gone
    ]
    (note,) = (one for one in told["warnings"] if "could not be looked at" in one)
    assert f"{gone}.npz: No such file" in note
    assert "gone: listed, but: No such file" in note


def test_no_path_leads_out_of_the_data_folder(make_ctrate: Make, tmp_path: Path) -> None:
    """Nor through a link, nor into a hidden folder, nor into the output."""
    made = make_ctrate(6)
    taken, out_of_it, linked, hidden, below_out, by_link = made.keys
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out = made.data_folder / "out"
    for folder in (made.data_folder / ".hidden", out):
        folder.mkdir()
    for key, folder in (
        (out_of_it, elsewhere),
        (linked, elsewhere),
        (hidden, made.data_folder / ".hidden"),
        (below_out, out),
        (by_link, elsewhere),
    ):
        made.sources[key].rename(folder / f"{key}.npz")
    (made.data_folder / "link").symlink_to(elsewhere)
    (made.data_folder / f"{by_link}.npz").symlink_to(elsewhere / f"{by_link}.npz")
    told = plan(
        made,
        out,
        made.sources[taken],
        elsewhere / f"{out_of_it}.npz",
        f"../../elsewhere/{out_of_it}.npz",
        f"link/{linked}.npz",
        f".hidden/{hidden}.npz",
        f"out/{below_out}.npz",
        f"{by_link}.npz",
    )
    assert {one["key"] for one in lines_of(out)} == {taken, by_link}
    notes = "\n".join(told["warnings"])
    assert f"{out_of_it}.npz: listed, but no path below --data_folder" in notes
    assert "1 linked folders were not entered" in notes
    assert f"their files are never deleted: {by_link}" in notes


def test_a_list_that_cannot_be_read(make_ctrate: Make, tmp_path: Path) -> None:
    """It is refused by name, and nothing is made."""
    made = make_ctrate(2)
    done = run_cli(*plan_words(made, tmp_path / "out", "--files_from", tmp_path / "none.txt"))
    assert done.code == ExitCode.USAGE
    assert "--files_from cannot be read" in done.text
    assert not (tmp_path / "out").exists()

"""`report --html`: one page, from the files alone, where it was asked for and nowhere else."""

from __future__ import annotations

import dataclasses
import html
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from unittest import mock

import pytest

from ctrate_convert.looking.words import size
from ctrate_convert.reporting.facts import Facts, gather
from ctrate_convert.reporting.page import page
from ctrate_convert.store.ledger import Ledger
from ctrate_convert.synthetic import SyntheticCtRate
from tests.promises.test_looking import everything
from tests.support import (
    Converted,
    command,
    convert_here,
    input_words,
    plan_words,
    run_cli,
    run_here,
)
from tests.unit.reporting.large import on_a_cluster

Make = Callable[..., SyntheticCtRate]

SECTIONS = (
    "totals", "promises", "course", "timelines", "sizes", "errors", "geometry", "labels", "failed",
    "deletion", "gallery",
)  # fmt: skip
VOID = frozenset(("meta", "img", "br"))


class Checked(HTMLParser):
    """The tags of a page: each closed in its order, each id once, each link to an id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))
        assert {link.removeprefix("#") for link in self.links} <= set(self.ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        self._note(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._note(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def _note(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            assert not name.startswith("on"), name
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "xlink:href"):
                self.links.append(value or "")
            if name == "src":
                assert (value or "").startswith("data:image/png;base64,")


def assert_holds_all_it_shows(text: str) -> None:
    """Nothing in the page asks a network, runs or is left open."""
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    tags = Checked(text).tags
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form"}


def written(out: Path, to: Path, *words: object, code: int = 0) -> str:
    done = run_here("report", out, "--html", to, *words)
    assert done.code == code, done.text
    return to.read_text()


def facts_of(done: Converted) -> Facts:
    return gather(Ledger.load(done.dataset), [])


def test_the_command_writes_a_page_with_every_section(converted: Converted, tmp_path: Path) -> None:
    """Its numbers are those of `report --json`, and nothing in the dataset changes."""
    before = everything(converted.out)
    to = tmp_path / "page.html"
    done = run_cli("report", converted.out, "--html", to)
    assert done.code == 0, done.text
    assert done.stdout == f"Wrote {to}: All 8 planned volumes are converted.\n"
    assert done.stderr == ""
    assert everything(converted.out) == before
    text = to.read_text()
    assert_holds_all_it_shows(text)
    for name in SECTIONS:
        assert f'<section id="{name}">' in text
    told = run_here("report", converted.out, "--json").json()
    for number in (told["total"]["source_bytes"], told["total"]["output_bytes"]):
        assert f"<dd>{size(number)}" in text
    assert text.count("data:image/png;base64,") == 6
    assert "Positive among 8 converted volumes." in text
    assert "Lung nodule" in text  # a chart's text is text


def test_with_json_both_come(converted: Converted, tmp_path: Path) -> None:
    told = run_here("report", converted.out, "--json", "--html", tmp_path / "page.html")
    assert told.stdout == run_here("report", converted.out, "--json").stdout
    assert (tmp_path / "page.html").is_file()


def test_failures_exclusions_consents_and_audits_are_told(
    make_ctrate: Make, tmp_path: Path
) -> None:
    made = make_ctrate(12, faults=("corrupt", "no_report", "excluded"))
    out = tmp_path / "out"
    words = ("--exclude_file", made.exclude_file, "--samples_per_shard", 4, "--probe", 2)
    assert run_here(*plan_words(made, out, *words)).code == 0
    assert run_here("run", out, "--num_workers", 1).code == 2
    assert run_here("delete", out, "--yes").code == 0
    assert run_here("audit", out).code == 0
    text = written(out, tmp_path / "page.html")
    assert_holds_all_it_shows(text)
    (failed,) = (key for key, fault in made.faults.items() if fault == "corrupt")
    assert "1 failed (its source is kept)" in text
    assert f"<td>{failed}</td>" in text
    assert "1 failed volume, source kept" in text
    assert "no_report" in text and "on_exclusion_list" in text
    (consent,) = run_here("history", out, "--json").json()["consents"]
    assert f"up to {consent['files']:,} files" in text
    assert f"gone under it, by the journals: {consent['files']} files" in text
    (audit,) = (out / ".run" / "audits").glob("*/summary.json")
    assert html.escape(json.loads(audit.read_text())["verdict"], quote=True) in text


def test_hostile_names_are_shown_and_do_nothing(make_ctrate: Make, tmp_path: Path) -> None:
    """Of files, nodes and reasons; a mark of direction and a byte that is no text, too."""
    made = make_ctrate(4)
    evil = "<img src=x onerror=alert(1)>$\\frac$\u202e<script>"
    (made.data_folder / f"{evil}.npz").write_bytes(b"")
    (made.data_folder / os.fsdecode(b"\xff<script>.npz")).write_bytes(b"")
    out = tmp_path / "out"
    assert run_here(*plan_words(made, out, "--probe", 0)).code == 0
    assert run_here("run", out, "--num_workers", 1).code == 0
    (attempt,) = (out / ".run" / "attempts").iterdir()
    for name in ("start.json", "end.json"):
        facts = json.loads((attempt / name).read_text())
        if name == "start.json":
            facts["host"] = evil
        else:
            facts |= {"outcome": "failed", "cause": "error", "reason": evil}
        (attempt / name).write_text(json.dumps(facts))
    to = tmp_path / "page.html"
    done = run_cli("report", out, "--html", to)
    assert (done.code, done.stderr) == (0, "")
    text = to.read_text()
    assert_holds_all_it_shows(text)
    assert "&lt;img src=x onerror=alert(1)&gt;$\\frac$\\u202e&lt;script&gt;" in text
    assert "\u202e" not in text
    assert "\\xff&lt;script&gt;" in text


def test_a_dataset_that_was_only_planned(make_ctrate: Make, tmp_path: Path) -> None:
    made = make_ctrate(4)
    out = tmp_path / "out"
    assert run_here(*plan_words(made, out, "--probe", 0)).code == 0
    text = written(out, tmp_path / "page.html")
    assert_holds_all_it_shows(text)
    assert "0 of 4 planned volumes are converted, 4 pending." in text
    assert "<svg" not in text and "<img" not in text
    assert text.count("Nothing is converted yet.") == 7


def test_one_shard_of_nifti(make_ctrate: Make, tmp_path: Path) -> None:
    """Shapes and spacings are known of every volume; all are exact, so there is no histogram."""
    made = make_ctrate(3, kinds=("nii.gz", "nii"))
    done = convert_here(made, tmp_path / "out", encoding="b2nd")
    text = written(done.out, tmp_path / "page.html")
    assert_holds_all_it_shows(text)
    assert "All 3 volumes are stored without any error." in text
    assert "<b>Shapes.</b> 3 volumes; " in text


def test_what_cannot_be_read_is_told(converted: Converted, tmp_path: Path) -> None:
    """Without a manifest there are no pictures; a damaged record is damage, and exit code 3."""
    converted.dataset.manifest.unlink()
    converted.dataset.record(0).write_text("{}")
    plan = converted.dataset.plan(0)
    (plan / "excluded.jsonl").write_text("changed\n")
    lines = (plan / "samples.jsonl").read_bytes()
    (plan / "samples.jsonl").write_bytes(lines[:-2] + b"\n\n")
    text = written(converted.out, tmp_path / "page.html", code=3)
    assert_holds_all_it_shows(text)
    assert "damage: " in text
    for told in (
        "No pictures: ",
        "The list of excluded volumes cannot be told: ",
        "labels of shard",
    ):
        assert told in text


def test_without_attempts_there_are_no_timelines(converted: Converted, tmp_path: Path) -> None:
    """As in a dataset of which only the shards and records were kept."""
    text = written(converted.out, tmp_path / "page.html")
    assert "No attempt was made yet." in text


@pytest.mark.parametrize("shards", [1, 300, 10_000])
def test_a_page_stays_small(converted: Converted, shards: int) -> None:
    """Ten thousand shards of a hundred volumes cost no more marks than a few hundred."""
    data = page(on_a_cluster(facts_of(converted), shards))
    assert len(data) < 3_000_000
    assert_holds_all_it_shows(data.decode())
    if shards == 10_000:
        assert b"40 of 10,000 tasks are shown, those with trouble first." in data


def test_the_same_facts_give_the_same_page(converted: Converted, tmp_path: Path) -> None:
    """Whatever a person's own settings of matplotlib say."""
    facts = on_a_cluster(facts_of(converted), 20)
    first = page(facts)
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.grid": False}):
        assert page(facts) == first
        assert matplotlib.rcParams["font.size"] == 30
    assert page(dataclasses.replace(facts, out="elsewhere")) != first


def test_the_page_is_not_put_among_the_data(
    ctrate: SyntheticCtRate, converted: Converted, tmp_path: Path
) -> None:
    data_folder = Path(converted.plan.settings.data_folder)
    inside = tmp_path / "link"
    inside.symlink_to(converted.out)
    for folder in (converted.out, converted.dataset.run, data_folder, inside):
        done = run_here("report", converted.out, "--html", folder / "report.html")
        assert done.code == 1, done.text
        assert not (folder / "report.html").exists()


def test_nothing_but_an_earlier_page_is_written_over(converted: Converted, tmp_path: Path) -> None:
    other = tmp_path / "other.html"
    other.write_text("<!doctype html>\n<p>mine")
    link, folder = tmp_path / "link.html", tmp_path / "folder.html"
    link.symlink_to(other)
    folder.mkdir()
    for to in (other, link, folder):
        assert run_here("report", converted.out, "--html", to).code == 1
    assert other.read_text() == "<!doctype html>\n<p>mine"
    assert link.is_symlink()
    assert run_here("report", converted.out, "--html", tmp_path / "no" / "page.html").code == 1
    to = tmp_path / "page.html"
    first = written(converted.out, to)
    assert written(converted.out, to).startswith(first[:60])
    assert sorted(path.name for path in tmp_path.glob("*.html")) == [
        "folder.html", "link.html", "other.html", "page.html",
    ]  # fmt: skip


def test_without_a_path_it_is_report_html_here(converted: Converted, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    done = subprocess.run(
        command("report", converted.out, "--html"), cwd=here, capture_output=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert done.stdout.startswith(b"Wrote report.html: ")
    assert [path.name for path in here.iterdir()] == ["report.html"]


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755])
def test_the_page_is_as_private_as_the_dataset(
    converted: Converted, tmp_path: Path, mode: int
) -> None:
    converted.dataset.run.chmod(mode)
    to = tmp_path / "page.html"
    run_cli("report", converted.out, "--html", to, umask=0o002)
    assert stat.S_IMODE(to.stat().st_mode) == mode & 0o666 & ~0o022


def test_without_matplotlib_the_command_says_what_to_install(
    converted: Converted, tmp_path: Path
) -> None:
    with mock.patch("importlib.util.find_spec", return_value=None):
        done = run_here("report", converted.out, "--html", tmp_path / "page.html", "--json")
    assert done.code == 1
    assert done.json()["error"]["next_command"] == "pip install 'ctrate-convert[report]'"


def test_only_the_page_needs_matplotlib() -> None:
    code = (
        "import sys, importlib; from ctrate_convert.cli import COMMANDS;"
        "[importlib.import_module(f'ctrate_convert.cli.{one}') for one in COMMANDS];"
        "print('matplotlib' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"


def test_a_run_leaves_bars_of_its_tasks(make_ctrate: Make, tmp_path: Path) -> None:
    """Of each task what its records tell, in the colour of what came of it."""
    made = make_ctrate(8, faults=("corrupt",))
    out = tmp_path / "out"
    done = run_here(
        "convert", *input_words(made, out), "--samples_per_shard", 2, "--num_workers", 1
    )
    assert done.code == 2
    text = written(out, tmp_path / "page.html")
    assert "done, some samples failed" in text
    assert ">task 3<" in text
    assert 'class="narrow"' in text and 'class="wide"' in text


def test_a_folder_whose_name_is_no_text(ctrate: SyntheticCtRate, tmp_path: Path) -> None:
    out = tmp_path / os.fsdecode(b"\xff<b>")
    done = convert_here(ctrate, out)
    text = written(done.out, tmp_path / "page.html")
    assert_holds_all_it_shows(text)
    assert "\\udcff&lt;b&gt;</h1>" in text
    assert text.count("data:image/png;base64,") == 6

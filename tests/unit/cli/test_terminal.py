"""Nothing in a name, a table, a path, a log or an error commands the terminal."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from unittest import mock

import pytest

from ctrate_convert.cli import show
from ctrate_convert.store.layout import Dataset
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import Finished, plan_words, run_at_terminal, run_cli, run_here

TITLE, CLEAR, C1, OVERRIDE, ISOLATE = "\x1b]0;own\x07", "\x1b[2J", "\x9b31m", "\u202e", "\u2066"
HOSTILE = f"a{TITLE}b{CLEAR}c{C1}d{OVERRIDE}e{ISOLATE}f\x7fg\rh"
COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def assert_harmless(done: Finished) -> None:
    assert not COMMANDS.search(done.text), ascii(done.text)
    assert "Traceback" not in done.text


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_hostile_file_names(ctrate: SyntheticCtRate, tmp_path: Path, as_json: bool) -> None:
    """They are named, escaped, where volumes are left out."""
    names = [HOSTILE, "bytes-\udc9b\udcff", "[red]markup[red]"]
    for name in names:
        (ctrate.data_folder / f"{name}.npz").write_bytes(b"")
    done = run_cli(*plan_words(ctrate, tmp_path / "out", "--details", *["--json"] * as_json))
    assert done.code == 0, done.text
    assert_harmless(done)
    if as_json:
        json.loads(done.stdout)
    assert "[red]markup[red]" in done.stdout
    for word in ("run", "delete", "verify", "status", "report", "history"):
        assert_harmless(run_cli(word, tmp_path / "out"))


def test_hostile_table_cells(ctrate: SyntheticCtRate, tmp_path: Path) -> None:
    """VolumeName, report and metadata, in warnings and in the JSON report too."""
    for path in (ctrate.reports_file, ctrate.meta_file, ctrate.labels_file):
        lines = path.read_text().splitlines()
        first = lines[1].split(",")
        more = ",".join([f"evil{TITLE}{OVERRIDE}_1.nii.gz", *first[1:]])
        path.write_text("\n".join([lines[0].rstrip(), *lines[1:], more]) + "\n")
    text = ctrate.reports_file.read_text()
    ctrate.reports_file.write_text(text.replace("findings", f"find{CLEAR}ings", 3))
    for json_or_not in ([], ["--json"]):
        assert_harmless(run_cli(*plan_words(ctrate, tmp_path / "out", *json_or_not)))
        assert_harmless(run_cli("run", tmp_path / "out", *json_or_not))


@pytest.mark.parametrize("name", [HOSTILE, "\udc9b[31m"], ids=["text", "bytes"])
def test_hostile_paths(make_ctrate: object, tmp_path: Path, name: str) -> None:
    """In errors, whichever option names them."""
    home = tmp_path / name
    for words in (
        ["run", home],
        ["verify", home],
        ["logs", home, 3],
        ["plan", "--config", home / "c.toml"],
        ["plan", "--data_folder", home, "--output_dir", tmp_path / "out"],
        ["audit", tmp_path, "--sample", name],
        ["run", tmp_path, "--num_workers", name],
        [name],
    ):
        done = run_cli(*words)
        assert done.code, done.text
        assert_harmless(done)


def test_hostile_data_folder(tmp_path: Path, ctrate: SyntheticCtRate) -> None:
    """A whole run with one, its question before deletion and its trash included."""
    home = (tmp_path / HOSTILE).resolve()
    home.mkdir()
    out, folder = home / "out", ctrate.data_folder.rename(home / "data")
    words = plan_words(ctrate, out)
    words[words.index("--data_folder") + 1] = folder
    done = run_cli(*words)
    assert done.code == 0, done.text
    assert_harmless(done)
    for word in ("run", "delete", "merge", "verify", "audit"):
        assert_harmless(run_cli(word, out))
    again = ["convert", *words[1:], "--delete_source_files", "--trash", home / "trash"]
    done = run_at_terminal("no\n", *again)
    assert "\\x1b]0;own\\x07" in done.text
    assert_harmless(done)


def test_hostile_logs_and_errors(ctrate: SyntheticCtRate, tmp_path: Path) -> None:
    """A traceback that an attempt kept is shown, not obeyed."""
    out = tmp_path / "out"
    assert run_cli(*plan_words(ctrate, out)).code == 0
    assert run_cli("run", out).code == 0
    end = next(Dataset(out).attempts.glob("*/end.json"))
    facts = json.loads(end.read_text())
    facts |= {"outcome": "failed", "reason": HOSTILE, "traceback": f"line one\n{HOSTILE}\n"}
    end.write_text(json.dumps(facts))
    for more in ([], ["--json"]):
        done = run_cli("logs", out, 0, *more)
        assert "b\\x1b[2Jc" in done.stdout or "b\\u001b[2Jc" in done.stdout
        assert_harmless(done)
        assert_harmless(run_cli("status", out, *more))


def test_hostile_exceptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of every kind, with their tracebacks where these are asked for."""
    for error in (OSError(5, HOSTILE, HOSTILE), RuntimeError(HOSTILE), ValueError(HOSTILE)):
        for asked in ("", "1"):
            monkeypatch.setenv("CTRATE_CONVERT_TRACEBACK", asked)
            with mock.patch("ctrate_convert.cli.merge.require_plans", side_effect=error):
                done = run_here("merge", tmp_path)
            assert done.code and not COMMANDS.search(done.text)
            assert ("Traceback" in done.text) == bool(asked)


def test_json_stays_the_same_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Programs read back what was meant, in any character."""
    facts = {HOSTILE: [HOSTILE, "ü\u65e5\U0001f600", "line\nline\ttab"]}
    show.as_json(facts)
    text = capsys.readouterr().out
    assert json.loads(text) == {"schema_number": 1, **facts}
    assert not COMMANDS.search(text)
    assert "ü\u65e5\U0001f600" in text


def test_tables_take_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """A cell is text: brackets, newlines and escapes stay in their row."""
    show.table(("name", ">n"), [("[bold]x[/bold]", 1), (f"a\n{CLEAR}", 2)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "[bold]x[/bold]" in lines[1] and "a\\n\\x1b[2J" in lines[2]


def test_only_one_place_prints() -> None:
    """Everything else of the command line goes through it."""
    folder = Path(show.__file__).parent
    for path in folder.glob("*.py"):
        text = path.read_text()
        if path.name not in ("terminal.py", "show.py"):
            for word in ("click.echo(", "click.prompt(", "click.confirm(", "print_exc(", " print("):
                assert word not in text, f"{os.fspath(path)}: {word}"

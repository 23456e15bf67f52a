"""Every command and every program in the documents runs as it stands there."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, cast

import pytest

from ctrate_convert.cli.ask import question
from ctrate_convert.cli.language import word
from ctrate_convert.deleting.proposal import Proposal, rounding_words
from ctrate_convert.errors import ExitCode
from ctrate_convert.store.records.manifest import GIB
from ctrate_convert.store.records.plan import Plan, PlanSettings
from ctrate_convert.synthetic import write_synthetic_ctrate

ROOT = Path(__file__).resolve().parents[2]
READMES = ("README.md", "README.zh-CN.md")
DOCUMENTS = (*READMES, "docs/howto.md", "docs/zh/guide.md")


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[str]:
    """The lines after ``$``, with their continuations."""
    return [c.removeprefix("$ ") for c in re.split(r"\n(?=\$ )", block.strip())]


def write_split(data: Path, split: Literal["train", "valid"], samples: int) -> None:
    made = write_synthetic_ctrate(data, samples=samples, shape=(12, 12, 6), seed=3, split=split)
    made.data_folder.rename(data / f"{split}_npz")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder as the documents assume it: config/ and data/ with both splits."""
    write_split(tmp_path / "data", "train", samples=8)
    write_split(tmp_path / "data", "valid", samples=3)
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path


@contextlib.contextmanager
def answering(answer: str) -> Iterator[int]:
    """Give a standard input: a terminal at which ``answer`` is typed, or none without an answer."""
    if not answer:
        yield subprocess.DEVNULL
        return
    ours, theirs = pty.openpty()
    os.write(ours, answer.encode() + b"\n")
    try:
        yield theirs
    finally:
        os.close(ours)
        os.close(theirs)


def asks(command: str) -> bool:
    """Return True for a command that asks before it deletes."""
    deletes = " delete " in command or " --delete_source_files" in command
    return deletes and not re.search(r" --(yes|dry_run)\b| plan ", command)


def shell(command: str, home: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if command == "make demo":  # what it leaves behind is there for the commands after it
        command += " && ctrate-convert demo demo"
    if command.startswith("make "):  # only looked at: the tests themselves run under make
        command = command.replace("make ", f"make -n -C '{ROOT}' ")
    with answering("DELETE" if asks(command) else "") as stdin:
        done = subprocess.run(
            command, shell=True, cwd=home, env={**os.environ, "PATH": path},
            stdin=stdin, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_of_the_documents_run_in_their_order(document: str, home: Path) -> None:
    """Someone who types a document's commands one after the other never meets an error."""
    written = [command for block in blocks(document, "console") for command in commands(block)]
    assert written
    for command in written:
        if not any(verb in command for verb in SLURM_VERBS):
            shell(command, home)
    if document in READMES:
        others = ("docs/shards.md", "docs/reading.md") if document == "README.md" else ()
        for program in [text for name in (document, *others) for text in blocks(name, "python")]:
            (home / "program.py").write_text(program)
            shell(f"'{sys.executable}' program.py", home)


SLURM_VERBS = (
    " submit ", " status ", " relaunch ", " cancel ", " logs ", " history ",
    " --cluster ", "slurm-", " --submit", " --result",
)  # fmt: skip
"""Commands that need a cluster: run by ``tests/cluster``."""


@pytest.mark.parametrize(
    ("document", "language"), [("docs/howto.md", "en"), ("docs/zh/guide.md", "zh_CN")]
)
def test_the_question_in_the_guides_is_the_programs(
    document: str, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader meets at the terminal what the guide showed, line for line."""
    monkeypatch.setenv("LANGUAGE", language)
    monkeypatch.delenv("LC_ALL", raising=False)
    monkeypatch.setenv("LANG", f"{language}.UTF-8")
    settings = PlanSettings(
        data_folder="/data/train_npz", reports_file="", meta_file="", labels_file=""
    )
    proposal = Proposal(
        plans=(cast(Plan, SimpleNamespace(settings=settings)),),
        shards=(0,),
        files=100,
        size_bytes=round(27.4 * GIB),
        rounding=tuple(rounding_words(Counter({"<f4": 100}), settings)),
        discard_members=(),
        trash="",
    )
    asked = "\n".join([*question(proposal, "convert"), f"{word('Your answer')}:"])
    assert f"```\n{asked}\n```" in (ROOT / document).read_text()


@pytest.mark.parametrize("document", READMES)
def test_exit_codes_in_the_readme_are_the_programs(document: str) -> None:
    """The README's table lists each exit code, and no other."""
    listed = re.findall(r"^\| (\d+) \|", (ROOT / document).read_text(), re.MULTILINE)
    assert [int(code) for code in listed] == [int(code) for code in ExitCode]


def test_links_between_documents_lead_somewhere() -> None:
    """Every relative link in the documents names a file that is there."""
    for document in [*map(ROOT.joinpath, READMES), *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_all_that_the_argument_of_safety_rests_on_is_there() -> None:
    """Each file, function and test that docs/safety.md names beside a promise."""
    text = (ROOT / "docs" / "safety.md").read_text()
    table = text[text.index("## Promises") :]
    rows = re.findall(r"^\| (?!-|promise )[^|]+\|([^|]+\|[^|]+)\|$", table, re.MULTILINE)
    assert len(rows) > 20
    source = "\n".join(
        path.read_text()
        for part in ("ctrate_convert", "tests")
        for path in (ROOT / part).rglob("*.py")
    )
    for name in sorted({name for row in rows for name in re.findall(r"`([^` ]+)`", row)}):
        if "/" in name or name.endswith(".py"):
            assert any((ROOT / part / name).exists() for part in ("", "ctrate_convert")), name
        elif not name.startswith("-"):
            last = name.rpartition(".")[2]
            assert re.search(rf"^ *(def|class) {last}\b|^    {last}: ", source, re.MULTILINE), name


def test_the_tour_of_the_architecture_names_what_is_there() -> None:
    """Every file and folder that docs/architecture.md leads a newcomer to."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`([a-z_/]+/[a-z_/]*(?:\.py)?)`", text))
    assert len(named) > 40
    missing = [
        name
        for name in named
        if not any((ROOT / part / name).exists() for part in ("", "ctrate_convert"))
    ]
    assert missing == []

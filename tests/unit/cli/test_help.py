"""Help: every command in a group, one short line each, options in sections, and near misses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctrate_convert.cli.groups import COMMANDS, GROUPS
from ctrate_convert.cli.sections import PLAN_SECTIONS
from ctrate_convert.errors import ExitCode
from tests.support import run_cli, run_here

ROOT = Path(__file__).parents[3]


def test_every_command_is_in_one_group_and_has_a_short_line() -> None:
    modules = {
        path.stem
        for path in (ROOT / "ctrate_convert" / "cli").glob("*.py")
        if "@click.command(" in path.read_text()
    }
    assert modules == set(COMMANDS)
    assert sum(map(len, GROUPS.values())) == len(COMMANDS)
    assert max(len(line) for line in COMMANDS.values()) <= 60
    shown = run_cli("--help", env={**os.environ, "COLUMNS": "80"}).stdout
    assert max(map(len, shown.splitlines())) <= 80
    for title, lines in GROUPS.items():
        assert f"\n{title}:\n" in shown
        for line in lines.values():
            assert line in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command(name: str) -> None:
    """`help NAME` is `NAME --help`, 80 columns wide."""
    asked, told = run_here("help", name), run_here(name, "--help")
    assert asked.code == told.code == ExitCode.DONE
    assert asked.stdout.strip() == told.stdout.strip()
    assert asked.stdout.startswith(f"Usage: ctrate-convert {name}")


def test_options_of_a_plan_stand_in_sections() -> None:
    """A new setting is given a section, or it stands among the few that are none's."""
    for name in ("plan", "convert"):
        shown = run_here(name, "--help").stdout
        for title in PLAN_SECTIONS if name == "plan" else {*PLAN_SECTIONS} - {"Views"}:
            assert f"\n{title}:\n" in shown
        others = shown[shown.index("\nOther:\n") :]
        named = {line.split()[0] for line in others.splitlines() if line.startswith("  -")}
        assert named <= {
            "--probe", "--num_workers", "--min_free_gb", "--json", "--verbose", "-h,",
            "--dry_run", "--details", "--show",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "meant"), [("paln", "plan"), ("veryfi", "verify"), ("STATUS", "status")]
)
def test_a_near_miss_is_told(typed: str, meant: str) -> None:
    refused = run_cli(typed)
    assert refused.code == ExitCode.USAGE
    assert f"Did you mean {meant!r}?" in refused.stderr


def test_what_is_like_no_command_gets_no_advice() -> None:
    refused = run_cli("frobnicate")
    assert refused.code == ExitCode.USAGE
    assert "no such command 'frobnicate'." in refused.stderr
    assert "Did you mean" not in refused.stderr


def test_bash_completes_commands() -> None:
    """The script that is offered makes a real bash complete."""
    script = run_cli("help", "--completion", "bash").stdout
    words = f"{script}\nCOMP_WORDS=(ctrate-convert ver); COMP_CWORD=1; " + (
        "_ctrate_convert_completion ctrate-convert; echo ${COMPREPLY[@]}"
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", words], env={**os.environ, "PATH": path}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["verify"]


@pytest.mark.parametrize("name", ["train", "valid", "cluster", "sbatch"])
def test_init_writes_a_template_and_never_overwrites(name: str, tmp_path: Path) -> None:
    to = tmp_path / "mine"
    assert run_here("init", name, "--to", to).code == ExitCode.DONE
    sources = {
        "train": "config/train.toml", "valid": "config/valid.toml",
        "cluster": "config/clusters/example.toml", "sbatch": "slurm/convert_array.sbatch",
    }  # fmt: skip
    assert to.read_bytes() == (ROOT / sources[name]).read_bytes()
    to.write_text("changed")
    refused = run_cli("init", name, "--to", to)
    assert refused.code == ExitCode.REFUSED
    assert to.read_text() == "changed"

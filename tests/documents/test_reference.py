"""The manual page and docs/reference.md are what the code says today."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ctrate_convert.cli.groups import COMMANDS
from ctrate_convert.cluster.scheduler.profile import ClusterProfile
from ctrate_convert.errors import ExitCode
from ctrate_convert.store.records.plan import PlanSettings
from tools import commands, manual, reference

ROOT = Path(__file__).resolve().parents[2]


def test_the_manual_page_is_up_to_date() -> None:
    assert manual.PAGE.read_text() == manual.page(), "python -m tools.manual"


def test_the_reference_is_up_to_date() -> None:
    assert reference.PAGE.read_text() == reference.page(), "python -m tools.reference"


def test_the_reference_has_every_command_setting_and_exit_code() -> None:
    text = reference.PAGE.read_text()
    for name in COMMANDS:
        assert f"\n### {name}\n" in text
    for name in (*PlanSettings.model_fields, *ClusterProfile.model_fields):
        assert f"\n| `{name}` | " in text
    last = text[text.index("## Exit codes") :]
    assert re.findall(r"^\| (\d+) \|", last, re.MULTILINE) == [str(int(code)) for code in ExitCode]


def test_every_option_is_told_with_its_default() -> None:
    plan = next(one for some in commands.groups().values() for one in some if one.name == "plan")
    options = {one.words.split()[0]: one for one in plan.options}
    assert set(options) > {f"--{name}" for name in PlanSettings.model_fields}
    assert (options["--samples_per_shard"].default, options["--samples_per_shard"].limits) == (
        "100",
        "x>=1",
    )
    assert not commands.EVERYWHERE & set(options)


def test_the_environment_variables_of_the_manual_are_the_programs() -> None:
    """Each is read by the package itself, or by the libraries that print and that do the work."""
    source = "\n".join(path.read_text() for path in (ROOT / "ctrate_convert").rglob("*.py"))
    named = {name for line in manual.ENVIRONMENT for name in line.split(", ")}
    assert {name for name in named if f'"{name}"' not in source} == {"NO_COLOR", "COLUMNS"}


@pytest.mark.parametrize(
    "reader",
    [
        ("man", "--warnings=w", "-E", "UTF-8", "-l"),
        ("groff", "-man", "-ww", "-Tutf8", "-rCHECKSTYLE=2"),
        ("mandoc", "-T", "lint", "-W", "warning"),
    ],
    ids=lambda reader: reader[0],
)
def test_readers_of_manual_pages_warn_of_nothing(reader: tuple[str, ...]) -> None:
    if shutil.which(reader[0]) is None:
        pytest.skip(f"{reader[0]} is not installed")
    done = subprocess.run(
        [*reader, str(manual.PAGE)], capture_output=True, text=True, timeout=60, check=False
    )
    if "has been minimized" in done.stdout:
        pytest.skip(f"{reader[0]} is a stub here")
    assert (done.returncode, done.stderr) == (0, "")
    if reader[0] != "mandoc":
        assert "EXIT STATUS" in re.sub(r".\x08|\x1b\[[\d;]*m", "", done.stdout)

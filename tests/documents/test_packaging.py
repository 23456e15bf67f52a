"""The source distribution and the wheel hold all that the program needs, and work elsewhere."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ctrate_convert import __version__

ROOT = Path(__file__).resolve().parents[2]
PACKAGING = ROOT / "config" / "packaging"
TEMPLATES = {
    "train": ("train.toml", "config/train.toml"),
    "valid": ("valid.toml", "config/valid.toml"),
    "cluster": ("cluster.toml", "config/clusters/example.toml"),
    "sbatch": ("convert_array.sbatch", "slurm/convert_array.sbatch"),
}
NOT_SOURCE = shutil.ignore_patterns(
    ".git", ".venv*", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis",
    "build", "dist", "site", "demo", "slurm-demo", "bench-work",
)  # fmt: skip


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def build(kind: str, source: Path, target: Path) -> Path:
    """Build as an installer does, without a network and without an environment of its own."""
    target.mkdir()
    code = f"import sys, setuptools.build_meta as b; b.build_{kind}(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", code, str(target)],
        cwd=source, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    (made,) = target.iterdir()
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        found = importlib.metadata.version("setuptools")
    except importlib.metadata.PackageNotFoundError:
        found = "0"
    if int(found.partition(".")[0]) < 77:
        pytest.skip(f"setuptools 77 builds the wheel; here is {found}: pip install '.[test]'")
    home = tmp_path_factory.mktemp("sdist")
    shutil.copytree(ROOT, home / "source", symlinks=True, ignore=NOT_SOURCE)
    return build("sdist", home / "source", home / "made")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution, as a package index would have it."""
    home = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(home, filter="data")
    return build("wheel", home / f"ctrate_convert-{__version__}", home / "made")


def package_files() -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "ctrate_convert").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_source_distribution_has_real_files_for_all_that_tests_and_site_need(
    sdist: Path,
) -> None:
    with tarfile.open(sdist) as archive:
        members = {one.name.partition("/")[2]: one for one in archive}
    assert not [name for name, one in members.items() if one.issym() or one.islnk()]
    others = {
        path.relative_to(ROOT).as_posix()
        for folder in ("tests", "tools", "config", "docs", "slurm", "benchmarks")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    top = {"README.md", "LICENSE", "CHANGELOG.md", "Makefile", "mkdocs.yml", "pyproject.toml"}
    assert (package_files() | others | top) - set(members) == set()


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        page = archive.read(
            f"ctrate_convert-{__version__}.data/data/share/man/man1/ctrate-convert.1"
        )
    assert {name for name in names if name.startswith("ctrate_convert/")} == package_files()
    assert {name for name in package_files() if name.endswith((".mo", ".po", "py.typed"))}
    assert page == (ROOT / "docs" / "man" / "ctrate-convert.1").read_bytes()
    assert {name.partition("/")[0] for name in names} == {
        "ctrate_convert",
        f"ctrate_convert-{__version__}.data",
        f"ctrate_convert-{__version__}.dist-info",
    }


def test_the_wheel_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """Its `init` writes every template, and it speaks Chinese."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path / "installed"),
        "PYTHONUTF8": "1",
        "LC_ALL": "zh_CN.UTF-8",
        "LANGUAGE": "",
    }

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    where = run("-c", "import ctrate_convert; print(ctrate_convert.__file__)").stdout
    assert where.startswith(str(tmp_path / "installed"))
    for name, (file, source) in TEMPLATES.items():
        assert run("-m", "ctrate_convert", "init", name).returncode == 0
        assert (tmp_path / file).read_bytes() == (ROOT / source).read_bytes()
        assert not (tmp_path / file).is_symlink()
    again = run("-m", "ctrate_convert", "init", "train")
    assert again.returncode == 4
    assert "错误" in again.stderr
    assert run("-m", "ctrate_convert", "help", "plan").stdout.startswith("Usage: ctrate-convert")


def test_the_description_for_package_indexes_has_no_link_into_the_checkout() -> None:
    text = (ROOT / project()["readme"]).read_text()
    assert not re.findall(r"\]\((?!https?:)", text)
    for extra in project()["optional-dependencies"]:
        assert f"\n- `{extra}`: " in text


def test_the_conda_recipe_asks_for_what_the_project_asks_for() -> None:
    text = (PACKAGING / "conda" / "meta.yaml").read_text()
    assert f'version = "{__version__}"' in text
    run = text[text.index("  run:") : text.index("\ntest:")]
    asked = dict(re.findall(r"^    - ([\w-]+) >=(\S+)$", run, re.MULTILINE))
    here = {"blosc2": "python-blosc2", "isal": "python-isal"}
    wanted = dict(re.split(r">=", one) for one in project()["dependencies"])
    wanted = {here.get(name, name): least for name, least in wanted.items()}
    assert asked == {"python": project()["requires-python"].removeprefix(">="), **wanted}


def test_the_container_recipe_takes_files_that_are_there() -> None:
    text = (PACKAGING / "apptainer.def").read_text()
    taken = re.findall(r"^    (\S+) /opt/source/(\S+)$", text, re.MULTILINE)
    assert {source for source, _ in taken} >= {"pyproject.toml", "LICENSE", "ctrate_convert"}
    for source, target in taken:
        assert source == target
        assert (ROOT / source).exists()

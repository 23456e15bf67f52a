"""What the program makes is readable by whom its sources were, and writable by its owner alone."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.locks import locked
from ctrate_convert.store.privacy import Permission, granted, keep_private, storage_is_ours
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import plan_words, run_cli

GROUP, OTHER_GROUP, FOREIGN = os.getegid(), os.getegid() + 1, 12345
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")

Make = Callable[..., SyntheticCtRate]


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder that everybody reaches: pytest's own lies below one that only its user does."""
    with tempfile.TemporaryDirectory(prefix="privacy-") as name:
        path = Path(name).resolve()
        path.chmod(0o755)
        yield path


@pytest.fixture
def public(tmp_path: Path, make_ctrate: Make) -> SyntheticCtRate:
    """Sources and tables that everybody may read."""
    made = make_ctrate(4)
    for path in (tmp_path / "ctrate").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (tmp_path / "ctrate").chmod(0o755)
    return made


def tables(made: SyntheticCtRate) -> list[Path]:
    return [made.reports_file, made.meta_file, made.labels_file]


def a_source(made: SyntheticCtRate) -> Path:
    return sorted(made.sources.values())[-1]


def modes_under(out: Path) -> dict[str, int]:
    """Permission bits of OUT and all in it, by path; links have none of their own."""
    return {
        str(path.relative_to(out)): stat.S_IMODE(path.stat().st_mode)
        for path in (out, *out.rglob("*"))
        if not path.is_symlink()
    }


def make_all(made: SyntheticCtRate, out: Path, umask: int) -> None:
    """Plan, run, merge, verify and delete under ``umask``."""
    for words in (
        plan_words(made, out, "--samples_per_shard", 2),
        ["run", out, "--num_workers", 2],
        ["merge", out],
        ["verify", out],
        ["delete", out, "--yes", "--num_workers", 1],
        ["audit", out],
    ):
        done = run_cli(*words, umask=umask)
        assert done.code == 0, done.text


def assert_at_most(out: Path, allowed: int) -> None:
    too_open = {path: f"{mode:04o}" for path, mode in modes_under(out).items() if mode & ~allowed}
    assert not too_open


MORE_PRIVATE: dict[str, tuple[Callable[[SyntheticCtRate], None], int]] = {
    "everybody": (lambda made: None, 0o755),
    "one source for its group": (lambda made: a_source(made).chmod(0o640), 0o750),
    "one source for its owner": (lambda made: a_source(made).chmod(0o600), 0o700),
    "the data folder": (lambda made: made.data_folder.chmod(0o700), 0o700),
    "a folder above the data folder": (lambda made: made.data_folder.parent.chmod(0o750), 0o750),
    "one table": (lambda made: made.meta_file.chmod(0o600), 0o700),
    "read but not searched": (lambda made: made.data_folder.chmod(0o744), 0o700),
    "written by all": (lambda made: a_source(made).chmod(0o666), 0o755),
}


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077], ids="{:03o}".format)
@pytest.mark.parametrize(("change", "allowed"), MORE_PRIVATE.values(), ids=MORE_PRIVATE)
def test_the_dataset_is_as_private_as_its_most_private_source(
    public: SyntheticCtRate,
    tmp_path: Path,
    change: Callable[[SyntheticCtRate], None],
    allowed: int,
    umask: int,
) -> None:
    """No file or folder under OUT, OUT included, grants more; the umask can only take away."""
    change(public)
    out = tmp_path / "out"
    if umask:
        assert run_cli(*plan_words(public, out), umask=umask).code == 0
    else:
        make_all(public, out, umask)
    assert_at_most(out, allowed)
    assert stat.S_IMODE((out / ".run").stat().st_mode) == allowed & ~umask


@pytest.mark.parametrize("umask", [0o002, 0o077], ids="{:03o}".format)
def test_nothing_is_writable_by_others_whatever_the_umask(
    public: SyntheticCtRate, tmp_path: Path, umask: int
) -> None:
    """Through every command that writes."""
    out = tmp_path / "out"
    make_all(public, out, umask)
    assert_at_most(out, 0o755 & ~umask)
    assert storage_is_ours(Dataset(out)) is None


def test_shards_of_public_sources_are_public(public: SyntheticCtRate, tmp_path: Path) -> None:
    """Privacy costs nothing where there is none to keep."""
    out = tmp_path / "out"
    make_all(public, out, 0o022)
    modes = modes_under(out)
    assert modes["shard-000000.tar"] == modes["manifest.json"] == modes["README.md"] == 0o644
    assert modes["."] == modes[".run"] == modes[".run/plans/0000"] == 0o755


def test_a_later_plan_narrows_and_never_widens(public: SyntheticCtRate, tmp_path: Path) -> None:
    """With a more private table the dataset becomes private, and stays so."""
    out = tmp_path / "out"
    first = list(public.sources.values())[:2]
    aside = [path.rename(path.with_suffix(".aside")) for path in first]
    assert run_cli(*plan_words(public, out)).code == 0
    assert modes_under(out)[".run"] == 0o755
    public.meta_file.chmod(0o600)
    aside[0].rename(first[0])
    assert run_cli(*plan_words(public, out)).code == 0
    assert modes_under(out)[".run"] == 0o700
    public.meta_file.chmod(0o644)
    aside[1].rename(first[1])
    assert run_cli(*plan_words(public, out)).code == 0
    assert modes_under(out)[".run"] == 0o700
    assert run_cli("run", out).code == 0
    assert {mode for path, mode in modes_under(out).items() if path.endswith(".tar")} == {0o600}


def test_a_person_may_open_a_dataset(public: SyntheticCtRate, tmp_path: Path) -> None:
    """What is made after a chmod of ``.run`` follows it."""
    a_source(public).chmod(0o600)
    out = tmp_path / "out"
    assert run_cli(*plan_words(public, out)).code == 0
    (out / ".run").chmod(0o750)
    assert run_cli("run", out).code == 0
    assert modes_under(out)["shard-000000.tar"] == 0o640


def test_a_group_writable_output_folder_stays_as_it_is(
    public: SyntheticCtRate, tmp_path: Path
) -> None:
    """A folder that the program did not make is not its to change; what it puts there is."""
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o2775)
    make_all(public, out, 0o002)
    assert modes_under(out).pop(".") == 0o2775
    for path, mode in modes_under(out).items():
        assert path == "." or not mode & 0o022


def of(mode: int, gid: int = GROUP) -> Permission:
    return Permission(mode, gid)


@pytest.mark.parametrize(
    ("files", "allowed"),
    [
        ([], 0o755),
        ([of(0o444)], 0o755),
        ([of(0o640)], 0o750),
        ([of(0o640, OTHER_GROUP)], 0o700),
        ([of(0o644, OTHER_GROUP)], 0o755),
        ([of(0o604)], 0o700),
        ([of(0o604, OTHER_GROUP)], 0o700),
        ([of(0o644), of(0o600)], 0o700),
    ],
)
def test_a_group_counts_where_it_is_the_output_s(
    tmp_path: Path, files: list[Permission], allowed: int
) -> None:
    """Members of another group than that of new files are others to a source."""
    assert granted(files, [], [tmp_path], tmp_path / "out") == allowed


def test_a_linked_volume_is_as_private_as_what_it_leads_to(
    public: SyntheticCtRate, tmp_path: Path
) -> None:
    """The folders above the link's target count too."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    source = a_source(public)
    source.rename(hidden / "volume").chmod(0o644)
    source.symlink_to(hidden / "volume")
    hidden.chmod(0o700)
    assert run_cli(*plan_words(public, tmp_path / "out")).code == 0
    assert modes_under(tmp_path / "out")[".run"] == 0o700


def test_the_umask_only_gets_stricter(tmp_path: Path) -> None:
    """The person's own one stays in force."""
    dataset = Dataset(tmp_path)
    dataset.run.mkdir(0o755)
    before = os.umask(0o027)
    try:
        keep_private(dataset)
        assert os.umask(0o027) == 0o027
        dataset.run.chmod(0o700)
        keep_private(dataset)
        assert os.umask(0o027) == 0o077
    finally:
        os.umask(before)


# --- Storage that can be trusted --------------------------------------------------------------


@pytest.fixture
def dataset(public: SyntheticCtRate, tmp_path: Path) -> Dataset:
    out = tmp_path / "out"
    assert run_cli(*plan_words(public, out), umask=0).code == 0
    return Dataset(out)


PLACES = ["", "plans", "plans/0000", "plans/0000/plan.json", "records", "deletions", "submissions"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("more", [0o020, 0o002], ids=["group", "others"])
def test_storage_that_others_can_write_is_named(dataset: Dataset, place: str, more: int) -> None:
    """With the path and its mode."""
    assert storage_is_ours(dataset) is None
    path = dataset.run / place
    path.chmod(stat.S_IMODE(path.stat().st_mode) | more)
    doubt = storage_is_ours(dataset) or ""
    assert str(path) in doubt and f"mode {stat.S_IMODE(path.stat().st_mode):04o}" in doubt


@pytest.mark.parametrize("place", PLACES)
def test_storage_reached_by_a_link_is_named(dataset: Dataset, place: str) -> None:
    """A link may lead elsewhere tomorrow."""
    path = dataset.run / place
    moved = path.rename(dataset.out / "moved")
    path.symlink_to(moved)
    assert storage_is_ours(dataset) == f"{path} is a link"


@AS_ROOT
@pytest.mark.parametrize("place", [*PLACES, "consents"])
def test_storage_of_somebody_else_is_named(dataset: Dataset, place: str) -> None:
    """Their owner may change them whatever their modes."""
    path = dataset.run / place
    path.mkdir(exist_ok=True) if place == "consents" else None
    os.chown(path, FOREIGN, -1)
    assert (storage_is_ours(dataset) or "").startswith(f"{path} belongs to user {FOREIGN}")


def test_an_acl_that_lets_somebody_write_shows(dataset: Dataset) -> None:
    """In the mode's group bits."""
    try:
        subprocess.run(["setfacl", "-m", "u:12345:rwx", dataset.records], check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("no ACLs here")
    assert "is writable by others" in (storage_is_ours(dataset) or "")


# --- Locks ------------------------------------------------------------------------------------


def test_a_planted_lock_link_is_not_followed(tmp_path: Path) -> None:
    """Its target keeps every byte; the lock only saves work, so that work goes on."""
    source = tmp_path / "source.npz"
    source.write_bytes(b"a scan")
    (tmp_path / "plan.lock").symlink_to(source)
    (tmp_path / "new.lock").symlink_to(tmp_path / "made")
    for name in ("plan.lock", "new.lock"):
        with locked(tmp_path / name, timeout_s=0.1) as mine:
            assert mine
    assert source.read_bytes() == b"a scan"
    assert not (tmp_path / "made").exists()


def test_commands_leave_planted_lock_links_alone(public: SyntheticCtRate, tmp_path: Path) -> None:
    """Every lock of every command leads to a source, and every source stays whole."""
    out = tmp_path / "out"
    assert run_cli(*plan_words(public, out, "--samples_per_shard", 4)).code == 0
    source = a_source(public)
    before = source.read_bytes()
    for name in ("plan", "manifest", "shard-000000", "submit"):
        lock = Dataset(out).lock(name)
        lock.unlink(missing_ok=True)
        lock.symlink_to(source)
    for words in (["run", out], ["merge", out], plan_words(public, out)):
        assert run_cli(*words).code == 0
    assert source.read_bytes() == before

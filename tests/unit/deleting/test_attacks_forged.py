"""Shards, records, plans, journals and consents that lie; and sources that were brought back."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctrate_convert.deleting.consents import load_consents
from ctrate_convert.errors import CtrateError, ExitCode
from ctrate_convert.shards.readback import read_shard
from ctrate_convert.store.journals import journal_line
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plan_copies import PLAN_COPY_FILE, PLAN_FILE
from tests.support import (
    Converted,
    Finished,
    convert_here,
    load_original,
    run_cli,
    run_here,
    same_voxels,
    sources_left,
)
from tests.unit.deleting.scenes import (
    Make,
    as_read_now,
    delete,
    forge,
    given,
    release,
    write_volume,
)
from tests.unit.deleting.two_volumes import CT, first, scene

HOW: dict[str, dict[str, Any]] = {
    "npy": {},
    "npy.gz": {"encoding": "npy.gz"},
    "b2nd": {"encoding": "b2nd"},
    "ctclip": {"layout": "ctclip", "dtype": "float16"},
}


# --- Shards that do not hold what their record says ---------------------------------------------


def of_other_voxels(converted: Converted, make: Callable[[], Converted]) -> None:
    """Put the shard and the record of other voxels in place, as a broken way would make them."""
    twin = make()
    shutil.copyfile(twin.dataset.shard(0), converted.dataset.shard(0))
    samples = tuple(
        theirs.model_copy(update={"source": ours.source})
        for theirs, ours in zip(twin.record().converted, converted.record().converted, strict=True)
    )
    update = {"plan_id": converted.plan.plan_id, "samples": samples}
    forge(converted, as_read_now(twin.record().model_copy(update=update), converted.made))


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_error_on_the_way_into_the_shard(
    make_ctrate: Make, tmp_path: Path, how: str, order: Any
) -> None:
    """One voxel that went wrong in scratch file, cast or codec, with digests to match, is found."""
    converted = scene(make_ctrate, tmp_path / "out", **HOW[how])
    key, path = converted.made.keys[0], first(converted)
    right = load_original(path)
    wrong = right.copy()
    wrong[3, 4, 5] += 16

    def twin() -> Converted:
        write_volume(path, np.asarray(wrong, order=order))
        made = convert_here(converted.made, tmp_path / "twin", **HOW[how])
        write_volume(path, np.asarray(right, order=order))
        return made

    of_other_voxels(converted, twin)
    layout = converted.plan.settings.layout
    read_shard(converted.dataset.shard(0), converted.record().converted, layout).require_sound()
    done = delete(converted)
    assert done.code == ExitCode.REFUSED
    assert "its shard does not hold it: " in done.text
    assert sources_left(converted.made) == {key}
    assert same_voxels(load_original(path), right)


# --- Forgeries ----------------------------------------------------------------------------------


def forged_plan(converted: Converted, **settings: Any) -> str:
    """Change settings of the plan in both of its copies, with an id to match."""
    plan = converted.plan
    changed = plan.settings.model_copy(update=settings)
    forged = plan.model_copy(update={"settings": changed})
    forged = forged.as_stored().model_copy(update={"plan_id": forged.as_stored().content_id()})
    for name in (PLAN_FILE, PLAN_COPY_FILE):
        (converted.dataset.plan(0) / name).write_bytes(forged.to_pretty_json())
    return forged.plan_id


def test_a_forged_plan(make_ctrate: Make, tmp_path: Path) -> None:
    """A plan that was made to say that sources go lets none go: nobody was asked."""
    converted = scene(make_ctrate, tmp_path / "out")
    name = given(converted).name
    plan_id = forged_plan(converted, delete_source_files=True)
    path = converted.dataset.record(0)
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "plan_id": plan_id}))
    converted.dataset.manifest.unlink()
    done = run_cli("run", converted.out)
    assert done.code == ExitCode.REFUSED
    assert "there is no terminal to ask at" in done.text
    with pytest.raises(CtrateError, match="does not name shard 0 of this plan"):
        release(converted, name)
    assert sources_left(converted.made) == set(converted.made.keys)


@pytest.mark.parametrize("what", ["record", "journal", "consent", "all"])
def test_forged(make_ctrate: Make, tmp_path: Path, what: str) -> None:
    """Whatever is forged around it, a source that its shard does not hold stays."""
    converted = scene(make_ctrate, tmp_path / "out")
    path = first(converted)
    write_volume(path, CT[::-1])
    source = path.read_bytes()
    converted.dataset.prepare()
    if what in ("all", "record"):
        if what == "all":
            plan_id = forged_plan(converted, delete_source_files=True, max_error=1e9)
            record = converted.dataset.record(0)
            record.write_text(json.dumps({**json.loads(record.read_bytes()), "plan_id": plan_id}))
        forge(converted, as_read_now(converted.record(), converted.made))
    if what in ("all", "journal"):
        lines = [
            journal_line(event, one.key, one.source.source, one.source.size_bytes, "somebody")
            for event in ("intent", "deleted", "intent")
            for one in converted.record().converted
        ]
        converted.dataset.journal(0).write_text("\n".join(lines) + "\n")
    consent = given(converted, shards=((0, 999),), discard_members=("data.npy",))
    if what in ("all", "consent"):
        done = release(converted, consent.name)
        assert "its shard does not hold it: 1,080 of 1,080 voxels" in done.kept[0].reason
    for words in (("delete", converted.out, "--yes"), ("run", converted.out, "--yes")):
        run_here(*words)
    assert path.read_bytes() == source
    assert sources_left(converted.made) <= set(converted.made.keys)


# --- The way back -------------------------------------------------------------------------------


def touch(path: Path) -> None:
    os.utime(path)


def copy(path: Path) -> None:
    shutil.copyfile(path, path.with_name("new"))
    path.with_name("new").rename(path)


def nothing(_: Path) -> None:
    pass


@pytest.mark.parametrize("change", [nothing, touch, copy])
def test_a_restored_source_is_never_deleted_again(
    make_ctrate: Make, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """What a person brought back stays, whatever its times and inode are by then."""
    converted = scene(make_ctrate, tmp_path / "out")
    assert delete(converted, "--trash", tmp_path / "trash").code == ExitCode.DONE
    assert not sources_left(converted.made)
    key = converted.made.keys[0]
    assert run_here("restore", converted.out, "--key", key).code == ExitCode.DONE
    change(first(converted))
    for more in ((), ("--trash", tmp_path / "trash")):
        delete(converted, *more)
        done = release(converted, given(converted).name)
        assert done.kept[0].reason.startswith("restored from the trash, ")
        assert sources_left(converted.made) == {key}


def test_moved_back_by_hand(make_ctrate: Make, tmp_path: Path) -> None:
    """A source that came back from the trash without a word of `restore` stays, too."""
    converted = scene(make_ctrate, tmp_path / "out")
    assert delete(converted, "--trash", tmp_path / "trash").code == ExitCode.DONE
    (moved,) = (tmp_path / "trash").rglob(first(converted).name)
    moved.rename(first(converted))
    shown = run_here("delete", converted.out, "--dry_run")
    assert "it is back from the trash, where it was moved " in shown.text
    delete(converted)
    done = release(converted, given(converted).name)
    assert done.kept[0].reason.startswith("it is back from the trash, where it was moved ")
    assert sources_left(converted.made) == {converted.made.keys[0]}
    assert run_here("restore", converted.out).code == ExitCode.DONE
    assert sources_left(converted.made) == set(converted.made.keys)


def test_consents_are_kept(make_ctrate: Make, tmp_path: Path) -> None:
    """Every deletion leaves the word by which it was allowed."""
    converted = scene(make_ctrate, tmp_path / "out")
    done: Finished = delete(converted)
    assert done.code == ExitCode.DONE
    (found,) = load_consents(Dataset(converted.out))
    assert found.command == "delete --yes"

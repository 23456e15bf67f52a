"""A consent is a record of its own: it names shards and plans, and only its owner can write it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ctrate_convert.deleting.consents import (
    load_consent,
    load_consents,
    ranges,
    require_consent,
)
from ctrate_convert.errors import CtrateError, DamageError, ExitCode, RefusedError
from ctrate_convert.store.plans import load_plans
from tests.support import Converted, convert_here, run_here, sources_left
from tests.unit.deleting.scenes import Make, as_root, delete, given, release


def assert_refused(converted: Converted, name: str, says: str, shard: int = 0) -> None:
    """Nothing goes, and the refusal says why."""
    with pytest.raises(CtrateError, match=says):
        release(converted, name, shard)
    assert sources_left(converted.made) == set(converted.made.keys)
    journal = converted.dataset.journal(shard)
    assert not journal.exists() or not journal.read_bytes()


def test_only_the_shards_it_names(converted: Converted) -> None:
    """A consent lets go the sources of its shards, and of no other."""
    name = given(converted).name
    assert_refused(converted, name, "the consent does not name shard 1 of this plan", shard=1)
    assert release(converted, name).deleted_files == 4
    assert sources_left(converted.made) == set(converted.made.keys[4:])


def test_only_the_plans_it_names(converted: Converted) -> None:
    """A consent to another plan's deletions lets nothing go."""
    name = given(converted, plans={"0" * 64: None}).name
    assert_refused(converted, name, "the consent does not name shard 0 of this plan")


def test_only_the_error_it_names(converted: Converted) -> None:
    """A plan that accepts another error than the question said lets nothing go."""
    name = given(converted, plans={converted.plan.plan_id: 0.5}).name
    assert_refused(converted, name, "the plan accepts another error than the person who consented")


@pytest.mark.parametrize("name", ["", "nobody wrote it", "../records/shard-000000", "../../out"])
def test_no_consent(converted: Converted, name: str) -> None:
    """Without a consent, and with another file in its place, nothing goes."""
    assert_refused(converted, name, "the consent to delete cannot be read|not a valid Consent")


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o777])
def test_written_by_others(converted: Converted, mode: int) -> None:
    """A consent that others can write to is nobody's word."""
    found = given(converted)
    converted.dataset.consent(found.name).chmod(mode)
    assert_refused(converted, found.name, "somebody else's, or others can write to it")


def test_owned_by_somebody_else(converted: Converted) -> None:
    """A consent of another user allows this one nothing."""
    as_root("give files away")
    found = given(converted)
    os.chown(converted.dataset.consent(found.name), 12345, -1)
    assert_refused(converted, found.name, "somebody else's, or others can write to it")


def test_given_by_another_user(converted: Converted) -> None:
    """A consent that names another user, or has another name than its file, is another one."""
    assert_refused(converted, given(converted, uid=12345).name, "the consent to delete is another")
    found = given(converted)
    path = converted.dataset.consent(found.name)
    path.rename(converted.dataset.consent("renamed"))
    assert_refused(converted, "renamed", "the consent to delete is another one")


def test_a_link_to_a_consent(converted: Converted, tmp_path: Path) -> None:
    """A consent is a file of its own, not a link to one."""
    found = given(converted)
    path = converted.dataset.consent(found.name)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert_refused(converted, found.name, "somebody else's, or others can write to it")


@pytest.mark.parametrize("damage", [b"", b"{}", b"\0" * 99, b'{"shards": [[0, 99]]}'])
def test_damaged(converted: Converted, damage: bytes) -> None:
    """What is no consent allows nothing, and reports pass over it."""
    found = given(converted)
    converted.dataset.consent(found.name).write_bytes(damage)
    with pytest.raises(DamageError):
        load_consent(converted.dataset, found.name)
    assert_refused(converted, found.name, "not a valid Consent")
    assert load_consents(converted.dataset) == []


def test_fields_that_nobody_knows(converted: Converted) -> None:
    """A consent with a field of another version is not read as if it were not there."""
    found = given(converted)
    path = converted.dataset.consent(found.name)
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "only_if": "full moon"}))
    assert_refused(converted, found.name, "not a valid Consent")


def test_what_a_command_records(make_ctrate: Make, tmp_path: Path) -> None:
    """`delete --yes` writes down who allowed what, before the first source goes."""
    converted = convert_here(make_ctrate(8), tmp_path / "out", samples_per_shard=4)
    sizes = [path.stat().st_size for path in converted.made.sources.values()]
    assert delete(converted, "--discard_members", "mask.npy").code == ExitCode.DONE
    (found,) = load_consents(converted.dataset)
    assert found.command == "delete --yes"
    assert (found.files, found.size_bytes) == (8, sum(sizes))
    assert found.shards == ((0, 1),)
    assert found.plans == {converted.plan.plan_id: None}
    assert found.uid == os.geteuid()
    assert found.discard_members == ("mask.npy",)
    assert found.rounding
    assert "2 volumes of float32 rounded to float16" in found.rounding[0]
    assert converted.dataset.consent(found.name).stat().st_mode & 0o022 == 0
    journal = converted.dataset.journal(0).read_text()
    assert journal.count(f"delete --yes (consent {found.name})") == 8


def test_a_second_command_needs_its_own(converted: Converted) -> None:
    """Each command that deletes writes its own consent; one that deletes nothing writes none."""
    assert run_here("delete", converted.out, "--dry_run").code == ExitCode.DONE
    assert run_here("delete", converted.out).code == ExitCode.REFUSED
    assert load_consents(converted.dataset) == []
    assert delete(converted).code == ExitCode.DONE
    assert delete(converted).code == ExitCode.DONE
    assert len(load_consents(converted.dataset)) == 1
    assert not sources_left(converted.made)


@pytest.mark.parametrize(
    ("shards", "expected"),
    [([], ()), ([3], ((3, 3),)), ([2, 0, 1, 5, 7, 6, 6], ((0, 2), (5, 7)))],
)
def test_ranges(shards: list[int], expected: tuple[tuple[int, int], ...]) -> None:
    """Shards stand in a consent as ranges."""
    assert ranges(shards) == expected


def test_a_second_plan_is_not_covered(converted: Converted, tmp_path: Path) -> None:
    """A consent to the deletions of one plan says nothing of a plan that is made later."""
    found = given(converted, shards=((0, 99),))
    later = converted.plan.model_copy(update={"created": "later"})
    later = later.model_copy(update={"plan_id": later.as_stored().content_id()})
    with pytest.raises(RefusedError, match="does not name shard 0 of this plan"):
        require_consent(converted.dataset, found.name, later, 0)
    assert require_consent(converted.dataset, found.name, load_plans(converted.dataset)[0], 0)

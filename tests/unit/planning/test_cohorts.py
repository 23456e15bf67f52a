"""A dataset says which lists of volumes it was made with, so that a cohort has a name."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctrate_convert.errors import ExitCode
from ctrate_convert.store.card import card_of, keep_card
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plans import load_plans
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import convert_words, plan_words, read_dataset, run_cli, run_here

Make = Callable[..., SyntheticCtRate]
ONLY_HEADERS = ("--probe", 0)


def write_list(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def record_of(path: Path, option: str, keys: int) -> dict[str, Any]:
    """What is recorded of a list, by hashlib alone."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"option": option, "name": path.name, "keys": keys, "sha256": sha256}


def plan_file(out: Path, generation: int = 0) -> Any:
    return json.loads((Dataset(out).plan(generation) / "plan.json").read_bytes())


def reasons(planned: Any) -> dict[str, str]:
    return {one["key"]: one["reason"] for one in planned["excluded"]}


def test_only_volumes_on_a_keep_list_are_planned(make_ctrate: Make, tmp_path: Path) -> None:
    """Lists add up, lines may be paths of another machine, and an exclusion list wins."""
    made = make_ctrate(8, faults=("no_report",))
    (unreported,) = made.faults
    a, b, c, d = [key for key in made.keys if key not in made.faults][:4]
    first = write_list(tmp_path / "cohort.txt", f"/old/place/{a}.nii.gz", f"{b}.npz", unreported)
    second = write_list(tmp_path / "more.txt", "# more", f"D:\\data\\{c}.nii", d, d)
    excluded = write_list(tmp_path / "no_chest.txt", c)
    out = tmp_path / "out"
    done = run_cli(
        *plan_words(made, out, *ONLY_HEADERS, "--keep_file", first, "--keep_file", second),
        "--exclude_file", excluded, "--json",
    )  # fmt: skip
    assert done.code == ExitCode.DONE, done.text
    left_out = reasons(done.json())
    assert left_out.pop(c) == "on_exclusion_list"
    assert left_out.pop(unreported) == "no_report"
    assert set(left_out.values()) == {"not_on_keep_list"}  # rows without a volume are among them
    assert left_out.keys() & set(made.keys) == set(made.keys) - {a, b, c, d, unreported}
    assert run_here("run", out).code == ExitCode.DONE
    assert read_dataset(out).keys() == {a, b, d}
    manifest = json.loads((out / "manifest.json").read_bytes())
    assert manifest["excluded"] == Counter([*left_out.values(), "on_exclusion_list", "no_report"])


def test_every_list_is_recorded_wherever_the_dataset_is_described(
    ctrate: SyntheticCtRate, tmp_path: Path
) -> None:
    """Option, name, distinct keys and hash: in plan, manifest, card and both reports."""
    keep = write_list(tmp_path / "valid_3002.txt", *ctrate.keys[:3], ctrate.keys[0])
    exclude = write_list(tmp_path / "no_chest.txt", ctrate.keys[2])
    out = tmp_path / "out"
    words = ("--keep_file", keep, "--exclude_file", exclude, *ONLY_HEADERS)
    done = run_cli(*convert_words(ctrate, out, *words))
    assert done.code == ExitCode.DONE, done.text
    lists = [record_of(exclude, "exclude_file", 1), record_of(keep, "keep_file", 3)]
    told = [
        f"--exclude_file no_chest.txt: 1 name, SHA-256 {lists[0]['sha256']}",
        f"--keep_file valid_3002.txt: 3 names, SHA-256 {lists[1]['sha256']}",
    ]
    assert [f"List {text}" in done.stdout for text in told] == [True, True]
    assert plan_file(out)["lists"] == lists
    by_generation = [{"generation": 0, "lists": lists}]
    assert json.loads((out / "manifest.json").read_bytes())["lists"] == by_generation

    reported = run_cli("report", out)
    assert [f"List of generation 0: {text}" in reported.stdout for text in told] == [True, True]
    assert run_here("report", out, "--json").json()["lists"] == by_generation
    card = (out / "README.md").read_text()
    for one in lists:
        row = f"| 0 | {one['option']} | `{one['name']}` | {one['keys']} | {one['sha256']} |"
        assert row in card.splitlines()

    again = run_here(*plan_words(ctrate, out, *words, "--json")).json()
    assert (again["plan"], again["lists"]) == (None, lists)


def test_each_generation_has_its_own_lists(ctrate: SyntheticCtRate, tmp_path: Path) -> None:
    """A later generation may have another list or none; the card that a merge wrote follows."""
    out = tmp_path / "out"
    first = write_list(tmp_path / "first.txt", *ctrate.keys[:2])
    second = write_list(tmp_path / "second.txt", *ctrate.keys[2:4])
    before = run_here(*convert_words(ctrate, out, *ONLY_HEADERS, "--keep_file", first))
    assert "stay planned" not in before.stdout
    after = run_here(*convert_words(ctrate, out, *ONLY_HEADERS, "--keep_file", second))
    assert "Note: 2 samples that were planned before are on no keep list" in after.stdout
    assert run_here(*convert_words(ctrate, out, *ONLY_HEADERS)).code == ExitCode.DONE
    assert read_dataset(out).keys() == set(ctrate.keys)

    of_each = [[record_of(first, "keep_file", 2)], [record_of(second, "keep_file", 2)], []]
    assert [plan_file(out, number)["lists"] for number in range(3)] == of_each
    by_generation = [{"generation": n, "lists": lists} for n, lists in enumerate(of_each)]
    assert run_here("report", out, "--json").json()["lists"] == by_generation
    manifest = json.loads((out / "manifest.json").read_bytes())
    assert manifest["lists"] == by_generation[:2]
    assert "List of generation 2: none" in run_here("report", out).stdout
    rows = [line.split(" | ")[:3] for line in (out / "README.md").read_text().splitlines()]
    assert rows[-3:-1] == [
        ["| 0", "keep_file", "`first.txt`"],
        ["| 1", "keep_file", "`second.txt`"],
    ]
    assert rows[-1][:2] == ["| 2", "none"]
    assert run_here("verify", out, "--full").code == ExitCode.DONE


@pytest.mark.parametrize("as_link", [False, True])
def test_a_card_of_ones_own_stays(ctrate: SyntheticCtRate, tmp_path: Path, as_link: bool) -> None:
    """Only the bytes that an earlier merge wrote are replaced, and no link is."""
    out, card = tmp_path / "out", tmp_path / "out" / "README.md"
    keep = write_list(tmp_path / "keep.txt", *ctrate.keys[:2])
    run_here(*convert_words(ctrate, out, *ONLY_HEADERS, "--keep_file", keep))
    mine = card.read_bytes() if as_link else card.read_bytes() + b"More words.\n"
    place = tmp_path / "mine.md" if as_link else card
    place.write_bytes(mine)
    if as_link:
        card.unlink()
        card.symlink_to(place)
    assert run_here(*convert_words(ctrate, out, *ONLY_HEADERS)).code == ExitCode.DONE
    assert (card.read_bytes(), card.is_symlink()) == (mine, as_link)


def test_an_older_view_of_the_plans_does_not_take_the_card_back(
    ctrate: SyntheticCtRate, tmp_path: Path
) -> None:
    """A worker that began before the newest generation merges with the plans that it knows."""
    out = tmp_path / "out"
    for number in (0, 2):
        keep = write_list(tmp_path / f"{number}.txt", *ctrate.keys[number : number + 2])
        run_here(*convert_words(ctrate, out, *ONLY_HEADERS, "--keep_file", keep))
    plans = load_plans(Dataset(out))
    keep_card(Dataset(out), plans[:1])
    assert (out / "README.md").read_bytes() == card_of(plans)


def test_a_lists_name_breaks_neither_card_nor_terminal(
    ctrate: SyntheticCtRate, tmp_path: Path
) -> None:
    """The manifest has the name as it is; the card has one row for it all the same."""
    keep = write_list(tmp_path / "a`|\n\x1b[2J.txt", *ctrate.keys[:2])
    out = tmp_path / "out"
    done = run_here(*convert_words(ctrate, out, *ONLY_HEADERS, "--keep_file", keep))
    assert done.code == ExitCode.DONE, done.text
    assert "\x1b" not in done.text + run_here("report", out).text
    (one,) = json.loads((out / "manifest.json").read_bytes())["lists"]
    assert one["lists"] == [record_of(keep, "keep_file", 2)]
    last = (out / "README.md").read_text().splitlines()[-1]
    assert last.startswith("| 0 | keep_file | `a????[2J.txt` | 2 | ")


def test_names_that_nothing_has_are_told(ctrate: SyntheticCtRate, tmp_path: Path) -> None:
    """A key on no volume and in no table is a warning with a count and examples."""
    known = ctrate.keys[0]
    keep = write_list(tmp_path / "keep.txt", known, *(f"valid_{n}_a_1" for n in range(10, 17)))
    done = run_here(*plan_words(ctrate, tmp_path / "out", *ONLY_HEADERS, "--keep_file", keep))
    assert done.code == ExitCode.DONE
    assert (
        "Note: 7 of the 8 names on the keep lists are no volume and stand in no table: "
        "valid_10_a_1, valid_11_a_1, valid_12_a_1, valid_13_a_1, valid_14_a_1 and 2 more"
    ) in done.stdout


@pytest.mark.parametrize("lines", [(), ("valid_1_a_1",)])
def test_a_keep_list_that_names_nothing_here_makes_no_plan(
    ctrate: SyntheticCtRate, tmp_path: Path, lines: tuple[str, ...]
) -> None:
    """An empty list keeps nothing, which is not the same as no list."""
    keep = write_list(tmp_path / "keep.txt", *lines)
    out = tmp_path / "out"
    done = run_here(*plan_words(ctrate, out, *ONLY_HEADERS, "--keep_file", keep))
    assert done.code == ExitCode.USAGE
    assert f"{len(lines)} names on the keep lists" in done.stderr
    everything = len({*ctrate.keys, ctrate.without_volume})
    assert f"{everything} not_on_keep_list" in done.stderr
    assert "check --data_folder, the three tables and --keep_file" in done.stderr
    assert not out.exists()


def test_a_list_is_read_once(
    ctrate: SyntheticCtRate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys and hash are of the same bytes, even if the file is another one a moment later."""
    keep = write_list(tmp_path / "keep.txt", *ctrate.keys[:2])
    before = record_of(keep, "keep_file", 2)
    read_bytes = Path.read_bytes

    def read_and_change(path: Path) -> bytes:
        data = read_bytes(path)
        if path == keep:
            write_list(keep, *ctrate.keys)
        return data

    monkeypatch.setattr(Path, "read_bytes", read_and_change)
    out = tmp_path / "out"
    assert run_here(*plan_words(ctrate, out, *ONLY_HEADERS, "--keep_file", keep)).code == 0
    planned = plan_file(out)
    assert (planned["samples"], planned["lists"]) == (2, [before])


def test_a_private_list_makes_a_private_dataset(ctrate: SyntheticCtRate, tmp_path: Path) -> None:
    """What is made is no more readable than the keep list was."""
    keep = write_list(tmp_path / "keep.txt", *ctrate.keys[:2])
    keep.chmod(0o600)
    out = tmp_path / "out"
    assert run_here(*plan_words(ctrate, out, *ONLY_HEADERS, "--keep_file", keep)).code == 0
    assert Dataset(out).run.stat().st_mode & 0o077 == 0


def test_a_repair_has_the_lists_of_its_plan(ctrate: SyntheticCtRate, tmp_path: Path) -> None:
    """Its samples were chosen by them."""
    keep = write_list(tmp_path / "keep.txt", *ctrate.keys[:2])
    out = tmp_path / "out"
    run_here(*convert_words(ctrate, out, *ONLY_HEADERS, "--keep_file", keep))
    shard = Dataset(out).shard(0)
    shard.write_bytes(shard.read_bytes()[:-4096])
    run_here("verify", out, "--full", "--repair")
    assert plan_file(out, 1)["repairs"]
    assert plan_file(out, 1)["lists"] == [record_of(keep, "keep_file", 2)]


def test_another_list_in_the_manifest_is_damage(ctrate: SyntheticCtRate, tmp_path: Path) -> None:
    """The plans say which lists there were; a merge writes them again."""
    keep = write_list(tmp_path / "keep.txt", *ctrate.keys[:2])
    out = tmp_path / "out"
    run_here(*convert_words(ctrate, out, *ONLY_HEADERS, "--keep_file", keep))
    manifest = json.loads((out / "manifest.json").read_bytes())
    right = (out / "manifest.json").read_bytes()
    manifest["lists"][0]["lists"][0]["name"] = "other.txt"
    (out / "manifest.json").write_text(json.dumps(manifest))
    done = run_here("verify", out)
    assert done.code == ExitCode.DAMAGE
    assert "manifest.json" in done.stdout
    assert run_here("merge", out).code == ExitCode.DONE
    assert (out / "manifest.json").read_bytes() == right

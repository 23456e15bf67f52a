"""The commands that delete: what they show, refuse, write down and leave."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from ctrate_convert.cluster.failed_samples import plan_failed_samples
from ctrate_convert.deleting.consents import load_consents
from ctrate_convert.deleting.gate import Release, release_sources
from ctrate_convert.errors import ExitCode
from ctrate_convert.store.journals import read_journal
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger, load_manifest
from ctrate_convert.store.merger import merge
from ctrate_convert.store.plans import load_plans
from tests.support import (
    DELETE,
    Converted,
    command,
    convert_words,
    input_words,
    load_originals,
    read_dataset,
    run_here,
    sources_left,
)
from tests.unit.deleting.scenes import (
    Make,
    delete,
)


def test_dry_run(converted: Converted) -> None:
    """With --dry_run the view is the whole of it; without it and --yes the command refuses."""
    shown = run_here("delete", converted.out, "--dry_run")
    assert shown.code == ExitCode.DONE
    assert re.search(r"^deletable +8 ", shown.stdout, re.MULTILINE)
    assert "Nothing was deleted. Next: ctrate-convert delete" in shown.stdout
    asked = run_here("delete", converted.out)
    assert asked.code == ExitCode.REFUSED
    assert "there is no terminal to ask at" in asked.text
    assert sources_left(converted.made) == set(converted.made.keys)
    folder = converted.dataset.run / "deletions"
    assert not folder.exists() or not list(folder.iterdir())
    both = run_here("delete", converted.out, "--dry_run", "--yes")
    assert both.code == ExitCode.USAGE
    assert sources_left(converted.made) == set(converted.made.keys)


def test_delete_twice(converted: Converted) -> None:
    """The second deletion finds nothing to do, and the journal stays as it is."""
    first = delete(converted)
    assert first.code == ExitCode.DONE
    assert "Deleted 8 source files" in first.text
    assert not sources_left(converted.made)
    journals = [converted.dataset.journal(shard).read_bytes() for shard in (0, 1)]
    second = delete(converted)
    assert second.code == ExitCode.DONE
    assert "Nothing to delete." in second.text
    assert [converted.dataset.journal(shard).read_bytes() for shard in (0, 1)] == journals
    assert run_here("verify", converted.out, "--full").code == ExitCode.DONE


def test_every_unlink_has_its_intent(converted: Converted) -> None:
    """The journal has one intent and one end a source, the intents first."""
    delete(converted)
    for shard in (0, 1):
        lines = read_journal(converted.dataset, shard)
        keys = [sample.key for sample in converted.record(shard).samples]
        assert [(line.event, line.key) for line in lines] == [
            *(("intent", key) for key in keys),
            *(("deleted", key) for key in keys),
        ]
        (authority,) = {line.authorised_by for line in lines}
        assert re.fullmatch(r"delete --yes \(consent [0-9TZ-]+-[0-9a-f]{8}\)", authority)


def test_plan_without_deletion(make_ctrate: Make, tmp_path: Path) -> None:
    """Without --delete_source_files neither plan, run nor merge deletes anything."""
    made = make_ctrate(4)
    out = tmp_path / "out"
    for words in (
        ["plan", *input_words(made, out)],
        ["run", out, "--yes"],
        ["merge", out],
        ["run", out],
    ):
        assert run_here(*words).code == ExitCode.DONE
    assert sources_left(made) == set(made.keys)


def test_failed_and_excluded_sources_stay(make_ctrate: Make, tmp_path: Path) -> None:
    """Whatever is deleted, failed and excluded samples keep their sources."""
    made = make_ctrate(8, kinds=("data",), faults=("corrupt", "no_report", "duplicate", "excluded"))
    originals = {k: v for k, v in load_originals(made).items() if k not in made.faults}
    out = tmp_path / "out"
    done = run_here(*convert_words(made, out, "--exclude_file", made.exclude_file, *DELETE))
    assert done.code == ExitCode.SAMPLES_FAILED
    assert "1 file was NOT deleted." in done.text
    assert sources_left(made) == set(made.faults)
    assert read_dataset(out).keys() == originals.keys()
    manifest = load_manifest(Dataset(out))
    assert manifest is not None
    states = {"converted": 4, "failed": 1, "pending": 0, "excluded": 4, "total": 9}
    assert manifest.samples == states
    assert delete(Converted(made, Dataset(out), {})).code == ExitCode.DONE
    assert sources_left(made) == set(made.faults)


def test_what_failed_keeps_no_shard_open(make_ctrate: Make, tmp_path: Path) -> None:
    """Under a consent, a shard whose converted samples are gone has nothing left to do.

    Of two shards one has a failed sample beside sound ones, the other nothing but a failed one.
    """
    made = make_ctrate(5, kinds=("data",), faults=("corrupt",))
    broken = next(iter(made.faults))
    last = made.keys[-1]
    made.sources[last].write_bytes(b"no archive")
    out = tmp_path / "out"
    words = ("--samples_per_shard", 4, *DELETE)
    done = run_here(*convert_words(made, out, *words))
    assert done.code == ExitCode.SAMPLES_FAILED
    assert sources_left(made) == {broken, last}
    dataset = Dataset(out)
    (consent,) = load_consents(dataset)
    assert Ledger.load(dataset).pending(consent) == []
    plans = load_plans(dataset)
    shard = plans[0].shards[-1]
    record = Ledger(dataset, plans).record(shard.index)
    assert record.tar is None
    release = Release(dataset, plans[0], shard, record, consent.name)
    assert release_sources(release).kept == []


def test_a_sample_that_fails_again_is_listed(make_ctrate: Make, tmp_path: Path) -> None:
    """It counts where it was planned last, in whatever generation that is."""
    made = make_ctrate(4, kinds=("data",), faults=("corrupt",))
    out = tmp_path / "out"
    run_here(*convert_words(made, out))
    for _ in range(2):
        assert plan_failed_samples(Dataset(out))
        run_here("run", out)
        sources = run_here("delete", out, "--dry_run", "--json").json()["sources"]
        states = {source["key"]: source["state"] for source in sources}
        assert len(sources) == len(states) == 4
        assert states[next(iter(made.faults))] == "failed"


def test_two_deletions_at_once(converted: Converted) -> None:
    """Two deletions at the same time together delete every source once."""
    words = command("delete", converted.out, "--yes")
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert {process.returncode for process in both} <= {0, 4}, said
    assert not sources_left(converted.made)
    merge(converted.dataset, load_plans(converted.dataset))
    for shard in (0, 1):
        ended = [e.key for e in read_journal(converted.dataset, shard) if e.event == "deleted"]
        assert sorted(ended) == sorted(sample.key for sample in converted.record(shard).samples)

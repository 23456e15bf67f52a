"""A person is asked at the act: what the question says, what each answer does, and who wins."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import subprocess
import termios
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ctrate_convert.deleting.consents import load_consents, require_consent, user_name
from ctrate_convert.errors import ExitCode, RefusedError
from ctrate_convert.running.run import Crew, run_pending
from ctrate_convert.store.journals import read_journal
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plans import load_plans
from ctrate_convert.store.records.consent import Consent
from ctrate_convert.synthetic import SyntheticCtRate, write_synthetic_ctrate
from tests.support import (
    TIMEOUT_S,
    Finished,
    assert_finished,
    command,
    convert_words,
    input_words,
    load_originals,
    needs,
    read_dataset,
    run_cli,
    run_here,
    sources_left,
)

Make = Callable[..., SyntheticCtRate]

PROPOSED = ("--delete_source_files", "--probe", 0, "--samples_per_shard", 2)
QUESTION = "Your answer"
PATIENCE_S = 10
ASKING = ("convert", "run", "delete")
NOT_AN_ANSWER = {
    "another word": ("yes\n", ExitCode.REFUSED),
    "in lower case": ("delete\n", ExitCode.REFUSED),
    "nothing": ("\n", ExitCode.REFUSED),
    "Ctrl+C": ("\x03", ExitCode.INTERRUPTED),
    "Ctrl+D": ("\x04", ExitCode.INTERRUPTED),
}


def at_terminal(answer: str, *words: object, env: Mapping[str, str] | None = None) -> Finished:
    """Run the command line at a terminal of its own; type ``answer`` once it has asked."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command(*words),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # Ctrl+C is a signal there
    ) as process:
        assert process.stderr is not None
        asked = b""
        while QUESTION.encode() not in asked and (piece := os.read(process.stderr.fileno(), 4096)):
            asked += piece
        stdout, stderr = typed(process, ours, answer)
    os.close(ours)
    os.close(theirs)
    return Finished(process.returncode, stdout.decode(), (asked + stderr).decode())


def typed(process: subprocess.Popen[bytes], ours: int, answer: str) -> tuple[bytes, bytes]:
    """Type ``answer``, and once more where it came just before the program read.

    CPython's `input` is deaf between writing its prompt and reading, and may empty the terminal.
    """
    for _ in range(TIMEOUT_S // PATIENCE_S):
        if process.poll() is None:
            os.write(ours, answer.encode())
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=PATIENCE_S)
    return process.communicate(timeout=TIMEOUT_S)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file and folder below ``folder``, but for locks, which say nothing."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
        if path.suffix != ".lock"
    }


@pytest.fixture
def made(make_ctrate: Make) -> SyntheticCtRate:
    """Four volumes of all four kinds: one of them is float32."""
    return make_ctrate(4)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def ready(verb: str, made: SyntheticCtRate, out: Path, *more: object) -> list[object]:
    """Bring the dataset to where ``verb`` asks; return the words of that command."""
    if verb == "convert":
        return convert_words(made, out, *PROPOSED, *more)
    assert run_here("plan", *input_words(made, out), *PROPOSED, *more).code == ExitCode.DONE
    if verb == "delete":
        assert run_here("run", out, "--keep_source_files").code == ExitCode.DONE
    return [verb, out]


def only_consent(out: Path) -> Consent:
    (consent,) = load_consents(Dataset(out))
    return consent


# --- What each answer does --------------------------------------------------------------------


@pytest.mark.parametrize("verb", ASKING)
@pytest.mark.parametrize("how", NOT_AN_ANSWER)
def test_no_answer_does_nothing_at_all(
    made: SyntheticCtRate, out: Path, verb: str, how: str
) -> None:
    """Another word, none, Ctrl+C or Ctrl+D leave every file as it was, and make none."""
    words = ready(verb, made, out)
    before = tree(out.parent)
    answer, code = NOT_AN_ANSWER[how]
    done = at_terminal(answer, *words)
    assert done.code == code, done.text
    assert "nothing was done" in done.stderr
    assert "Traceback" not in done.text
    assert tree(out.parent) == before
    assert out.exists() == (verb != "convert")
    assert sources_left(made) == set(made.keys)


@pytest.mark.parametrize("verb", ASKING)
def test_keep(made: SyntheticCtRate, out: Path, verb: str) -> None:
    """``keep`` converts what is pending, deletes nothing and leaves no consent behind."""
    originals = load_originals(made)
    done = at_terminal("keep\n", *ready(verb, made, out))
    assert done.code == ExitCode.DONE, done.text
    assert "Nothing will be deleted." in done.stderr
    assert sources_left(made) == set(made.keys)
    assert_finished(made, originals, out)
    assert not load_consents(Dataset(out))
    assert not any((out / ".run" / "deletions").iterdir())


@pytest.mark.parametrize("verb", ASKING)
def test_delete(made: SyntheticCtRate, out: Path, verb: str) -> None:
    """``DELETE`` lets the sources go, under a record that the journal names in every line."""
    originals = load_originals(made)
    done = at_terminal("DELETE\n", *ready(verb, made, out))
    assert done.code == ExitCode.DONE, done.text
    assert not sources_left(made)
    assert_finished(made, originals, out)
    consent = only_consent(out)
    assert consent.command == f"{verb}, DELETE typed"
    lines = [line for shard in (0, 1) for line in read_journal(Dataset(out), shard)]
    assert [line.event for line in lines].count("deleted") == 4
    assert {line.authorised_by for line in lines} == {f"{consent.command} (consent {consent.name})"}


@pytest.mark.parametrize("verb", ASKING)
def test_yes(made: SyntheticCtRate, out: Path, verb: str) -> None:
    """``--yes`` stands for the answer, needs no terminal, and is recorded as what was said."""
    done = run_cli(*ready(verb, made, out), "--yes")
    assert done.code == ExitCode.DONE, done.text
    assert QUESTION not in done.text
    assert not sources_left(made)
    assert only_consent(out).command == f"{verb} --yes"


@pytest.mark.parametrize("verb", [*ASKING, "submit"])
def test_no_terminal(made: SyntheticCtRate, out: Path, verb: str) -> None:
    """Without a terminal and without ``--yes`` each refuses before it does anything."""
    words = ready(verb, made, out)
    before = tree(out.parent)
    done = run_cli(*words)
    assert done.code == ExitCode.REFUSED
    assert f"`{verb}` asks before it deletes, and there is no terminal to ask at" in done.stderr
    assert "the same command with --yes" in done.stderr
    assert tree(out.parent) == before


@pytest.mark.parametrize("words", [("--keep_source_files",), ()])
def test_no_terminal_is_needed_to_keep(
    made: SyntheticCtRate, out: Path, words: tuple[str, ...]
) -> None:
    """Where nothing can be deleted nobody is asked: by the command, or by the plan."""
    proposed = PROPOSED if words else ("--samples_per_shard", 2)
    assert run_here("plan", *input_words(made, out), *proposed).code == ExitCode.DONE
    assert run_cli("run", out, *words).code == ExitCode.DONE
    assert sources_left(made) == set(made.keys)


def test_nobody_is_asked_twice(made: SyntheticCtRate, out: Path) -> None:
    """Where all sources are gone, `run` and `delete` end without a question."""
    assert run_cli(*convert_words(made, out, *PROPOSED), "--yes").code == ExitCode.DONE
    for words in (["run", out], ["delete", out]):
        again = run_cli(*words)
        assert again.code == ExitCode.DONE, again.text
    only_consent(out)


# --- What the question says -------------------------------------------------------------------


def asked(made: SyntheticCtRate, out: Path, *more: object, verb: str = "convert") -> str:
    """The question's text on one line; it is answered by nothing. Only a path may be wider."""
    done = at_terminal("\n", *ready(verb, made, out, *more))
    text = done.stderr[done.stderr.index("WARNING") : done.stderr.index(QUESTION)]
    lines = [line for line in text.splitlines() if str(made.data_folder) not in line]
    assert max(map(len, lines)) <= 80
    return " ".join(text.split())


def test_the_question_counts(made: SyntheticCtRate, out: Path) -> None:
    """It names files, bytes, the folder and the three answers."""
    text = asked(made, out)
    size = sum(path.stat().st_size for path in made.sources.values())
    assert f"WARNING: up to 4 source files ({size / 1024:.1f} KiB) will be deleted for good" in text
    assert str(made.data_folder) in text
    assert "DELETE converts and deletes; keep converts and deletes nothing;" in text
    assert "anything else does nothing." in text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "1 volume of float32 rounded to float16, each voxel by at most 1/1024 of its volume's "
             "spread (outliers: 1/2048 of their value)."),
        (("--dtype", "int16", "--step", 0.001), "1 volume of float32 rounded to int16 in steps of "
             "0.001, each voxel by at most 1/1024 of its volume's spread (outliers: half a step)."),
        (("--max_error", 0.5), "1 volume of float32 rounded to float16, each voxel by at most 0.5, "
             "as --max_error accepts."),
        (("--layout", "ctclip"), "3 volumes of int16 rounded to float16, each voxel"),
    ],
)  # fmt: skip
def test_the_question_says_what_is_rounded(
    made: SyntheticCtRate, out: Path, more: tuple[object, ...], said: str
) -> None:
    """Which volumes, to what, and by how much at most, in every way to round."""
    assert said in asked(made, out, *more)


def test_the_question_says_that_nothing_is_rounded(make_ctrate: Make, out: Path) -> None:
    """Integers stay exact, and the question says so."""
    text = asked(make_ctrate(4, kinds=("volume",)), out)
    assert "Nothing is rounded: every voxel is kept exactly." in text


def test_the_question_of_delete_knows_the_largest_error(made: SyntheticCtRate, out: Path) -> None:
    """Once converted, the error that was measured stands in the question."""
    assert re.search(r"the largest error measured is [\d.e-]+\.", asked(made, out, verb="delete"))


def test_the_question_names_discards_trash_and_copies(
    made: SyntheticCtRate, out: Path, tmp_path: Path
) -> None:
    """What is lost, where files are moved to instead, and who must hold the shards too."""
    trash, copy = tmp_path / "trash", tmp_path / "copy"
    copy.mkdir()
    words = ready("delete", made, out)
    more = ("--trash", trash, "--copies", copy, "--discard_members", "mask.npy,notes.txt")
    text = " ".join(at_terminal("\n", *words, *more).stderr.split())
    assert f"will be moved to the trash {trash}, in {made.data_folder}" in text
    assert f"Second copy: {copy} must hold the shard too." in text
    assert "Lost with a source that holds it (--discard_members): mask.npy, notes.txt." in text
    assert not trash.exists()


def test_no_trash_is_made_before_the_answer(made: SyntheticCtRate, out: Path) -> None:
    """A plan that moves sources to a trash makes the folder when it is needed, not before."""
    trash = out.parent / "trash"
    assert at_terminal("\n", *ready("convert", made, out, "--trash", trash)).code == 4
    assert not trash.exists()
    assert at_terminal("DELETE\n", *ready("convert", made, out, "--trash", trash)).code == 0
    assert len(list(trash.rglob("*.npz"))) == 4
    assert only_consent(out).trash == str(trash)


# --- A no anywhere wins -----------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["convert", "run"])
@pytest.mark.parametrize(
    "said",
    [
        ("--keep_source_files",),
        ("--keep_source_files", "--delete_source_files", "--yes"),
        ("--delete_source_files", "--yes", "--keep_source_files"),
    ],
)
def test_keep_on_the_command_line_wins(
    made: SyntheticCtRate, out: Path, verb: str, said: tuple[str, ...]
) -> None:
    """``--keep_source_files`` wins in whatever place, also against ``--yes``."""
    done = run_cli(*ready(verb, made, out), *said)
    assert done.code == ExitCode.DONE, done.text
    assert len(read_dataset(out)) == 4
    assert sources_left(made) == set(made.keys)
    assert not load_consents(Dataset(out))
    proposed = verb == "convert" or "--delete_source_files" in said
    assert ("a no always wins" in done.stderr) == proposed


@pytest.mark.parametrize("verb", ["convert", "run"])
def test_false_in_the_settings_wins(
    made: SyntheticCtRate, out: Path, tmp_path: Path, verb: str
) -> None:
    """``delete_source_files = false`` in ``--config`` is not switched off by an option."""
    config = tmp_path / "keep.toml"
    config.write_text("delete_source_files = false\n")
    words = ready(verb, made, out)
    done = run_cli(*words, "--config", config, "--delete_source_files", "--yes")
    assert done.code == ExitCode.DONE, done.text
    assert "--config says delete_source_files = false, and a no always wins" in done.stderr
    assert sources_left(made) == set(made.keys)


def test_false_in_the_plan_wins(made: SyntheticCtRate, out: Path) -> None:
    """A plan made without it deletes nothing, whatever `run` and a later `convert` are told."""
    assert run_here("plan", *input_words(made, out)).code == ExitCode.DONE
    done = run_cli("run", out, "--delete_source_files", "--yes")
    assert "the plan was made without --delete_source_files, and a no always wins" in done.stderr
    for words in (["run", out, "--yes"], [*convert_words(made, out, *PROPOSED), "--yes"]):
        assert run_cli(*words).code == ExitCode.DONE
    assert sources_left(made) == set(made.keys)
    assert not load_consents(Dataset(out))


def test_a_trash_in_the_settings_is_no_hindrance_to_keeping(
    made: SyntheticCtRate, out: Path, tmp_path: Path
) -> None:
    """``--keep_source_files`` overrules a settings file that names a trash."""
    config = tmp_path / "trash.toml"
    config.write_text(f"delete_source_files = true\ntrash = '{tmp_path / 'trash'}'\n")
    words = convert_words(made, out, "--config", config, "--keep_source_files")
    assert run_cli(*words).code == ExitCode.DONE
    assert sources_left(made) == set(made.keys)
    assert load_plans(Dataset(out))[0].settings.trash is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "Sources are KEPT: this plan deletes nothing."),
        (PROPOSED, "Sources are proposed for deletion: `run` and `submit` ask before they delete."),
    ],
)
def test_plan_says_at_once_what_becomes_of_the_sources(
    made: SyntheticCtRate, out: Path, more: tuple[object, ...], said: str
) -> None:
    """Its second line tells whether sources are kept, or proposed for deletion."""
    done = run_here("plan", *input_words(made, out), *more)
    assert done.stdout.splitlines()[1] == said


# --- The record -------------------------------------------------------------------------------


def test_the_record_says_who_what_when_where(made: SyntheticCtRate, out: Path) -> None:
    """All that the question said and who answered it stands in the consent."""
    words = ready("convert", made, out, "--discard_members", "mask.npy", "--max_error", 0.5)
    size_bytes = sum(path.stat().st_size for path in made.sources.values())
    assert at_terminal("DELETE\n", *words).code == ExitCode.DONE
    consent = only_consent(out)
    (plan,) = load_plans(Dataset(out))
    assert consent.plans == {plan.plan_id: 0.5}
    assert consent.shards == ((0, 1),)
    assert (consent.files, consent.size_bytes) == (4, size_bytes)
    assert consent.discard_members == ("mask.npy",)
    assert consent.rounding == (
        "1 volume of float32 rounded to float16, each voxel by at most 0.5, as --max_error accepts",
    )
    assert (consent.user, consent.uid) == (user_name(), os.geteuid())
    assert consent.host == os.uname().nodename
    assert consent.time.endswith("+00:00")
    path = Dataset(out).consent(consent.name)
    assert path.stat().st_mode & 0o022 == 0


def test_status_and_history_quote_the_consent(made: SyntheticCtRate, out: Path) -> None:
    """Who allowed what, when, where and by which command, in both and in their JSON."""
    assert run_cli(*convert_words(made, out, *PROPOSED), "--yes").code == ExitCode.DONE
    consent = only_consent(out)
    for verb in ("status", "history"):
        said = run_cli(verb, out).stdout
        assert f"Consent {consent.name}: {user_name()} on {consent.host}, {consent.time}" in said
        assert "by `convert --yes`: delete up to 4 files" in said
        (quoted,) = run_cli(verb, out, "--json").json()["consents"]
        assert Consent.model_validate(quoted, strict=False) == consent


def test_the_record_is_durable_before_the_first_intent(
    made: SyntheticCtRate, out: Path, tmp_path: Path
) -> None:
    """Name and content of the consent are on storage before the journal is opened."""
    needs("strace", "strace", "-o", "/dev/null", "true")
    words = ready("delete", made, out)
    log = tmp_path / "strace.txt"
    calls = "trace=fsync,openat"
    done = run_cli(*words, "--yes", before=["strace", "-f", "-y", "-o", str(log), "-e", calls])
    assert done.code == ExitCode.DONE, done.text
    lines = log.read_text().splitlines()
    consents = re.escape(str(Dataset(out).consents))

    def first(pattern: str) -> int:
        return next(n for n, one in enumerate(lines) if re.search(pattern, one))

    content, name = first(rf"fsync\(\d+<{consents}/"), first(rf"fsync\(\d+<{consents}>")
    assert content < name < first(r"openat\(.*deletions/shard-.*O_APPEND")


# --- What a consent does not cover ------------------------------------------------------------


def test_a_later_plan_is_not_covered(made: SyntheticCtRate, out: Path, tmp_path: Path) -> None:
    """Shards that were planned after the consent keep their sources, under whatever number."""
    words = convert_words(made, out, *PROPOSED)
    assert run_cli(*words, "--yes").code == ExitCode.DONE
    earlier = only_consent(out)
    more = write_synthetic_ctrate(tmp_path / "more", samples=2, shape=(6, 5, 4), split="valid")
    assert run_here("plan", *input_words(more, out), *PROPOSED).code == ExitCode.DONE
    dataset = Dataset(out)
    later = load_plans(dataset)[1]
    for shard in (0, 2):
        with pytest.raises(RefusedError, match="does not name shard"):
            require_consent(dataset, earlier.name, later, shard)
    run_pending(dataset, Crew(1), consent=earlier)
    assert len(read_dataset(out)) == 6
    assert sources_left(more) == set(more.keys)


def test_storage_that_others_could_change_is_refused_before_the_question(
    made: SyntheticCtRate, out: Path
) -> None:
    """Nobody is asked for what the gate would refuse, and no consent is recorded."""
    words = ready("run", made, out)
    (out / ".run").chmod(0o770)
    for more in ((), ("--yes",)):
        done = at_terminal("DELETE\n", *words, *more)
        assert done.code == ExitCode.REFUSED
        assert "no source is deleted" in done.stderr and "writable by others" in done.stderr
        assert QUESTION not in done.text
    assert not read_dataset(out)
    assert not load_consents(Dataset(out))


def test_memory_is_refused_before_anything_is_made(made: SyntheticCtRate, shm: Path) -> None:
    """`convert` onto a tmpfs refuses to delete at once, and makes nothing there."""
    done = run_cli(*convert_words(made, shm / "out", *PROPOSED), "--yes")
    assert done.code == ExitCode.REFUSED
    assert "the output lies in memory" in done.stderr
    assert not any(shm.iterdir())


@pytest.fixture
def shm() -> Any:
    import tempfile

    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)

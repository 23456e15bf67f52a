"""Changes to the files of a dataset directory, blind ones and ones whose hashes fit again."""

from __future__ import annotations

import contextlib
import json
import os
import random
from typing import Any

from ctrate_convert.errors import SettingsError
from ctrate_convert.store.presence import hidden_names
from ctrate_convert.store.records.base import sha256_hex
from ctrate_convert.store.records.plan import Plan
from ctrate_convert.store.records.record import ShardRecord
from tests.promises.fuzz.mutations import BYTES, LINES, edit, edited_json, nasty
from tests.promises.fuzz.names import PLANTED
from tests.promises.fuzz.stage import Stage

STRAY = (
    "shard-000009",
    "shard-1",
    "shard-000000.copy",
    "0009",
    "x",
    "shard--00001",
    "SHARD-000000",
)
"""Names that nobody has written, or not for this file."""


def tamper(chance: random.Random, stage: Stage) -> None:
    """Change one file of the dataset directory."""
    everything = sorted(stage.out.rglob("*"))
    files = [path for path in everything if path.is_file() and not path.is_symlink()]
    names = [path for path in files if path.suffix in (".json", ".jsonl", ".tar")]
    if not names:
        return
    path = chance.choice(names)
    how = chance.randrange(12)
    if how == 0:
        path.unlink()
        path.symlink_to(stage.outside / chance.choice(("precious.npz", "missing", "notes.jsonl")))
    elif how == 1:
        path.unlink()
        path.mkdir()
    elif how == 2:
        other = chance.choice(names)
        path.write_bytes(other.read_bytes())
    elif how == 10:
        path.unlink()
        os.mkfifo(path)
    elif how == 11:
        stray = path.with_name(chance.choice(STRAY) + path.suffix)
        if not os.path.lexists(stray):
            stray.write_bytes(path.read_bytes())
    elif how == 3 and path.suffix != ".tar":
        chance.choice((tamper_consistently, forge_journal, forge_consent))(chance, stage)
    elif how < 8 and path.suffix != ".tar" and path.read_bytes():
        with contextlib.suppress(ValueError):  # damaged by an earlier turn
            path.write_bytes(edited_json(chance, path.read_bytes(), stage.outside))
    elif data := path.read_bytes():
        path.write_bytes(chance.choice((*BYTES, *LINES))(chance, data))


def plant(chance: random.Random, stage: Stage) -> None:
    """Put something under a hidden name of a source: what others might, or a killed deletion."""
    made = stage.scenario.made
    source = made.sources[chance.choice(made.keys)]
    place = source.with_name(chance.choice(hidden_names(source.name)))
    if os.path.lexists(place) or not source.parent.is_dir():
        return
    how = chance.randrange(6)
    if how == 0:
        place.symlink_to(chance.choice((stage.outside / "precious.npz", source, "missing")))
    elif how == 1:
        os.mkfifo(place)
    elif how == 2:
        place.mkdir()
    elif how == 3:
        place.write_bytes(PLANTED)
    elif source.is_file():
        source.rename(place)


def forge_journal(chance: random.Random, stage: Stage) -> None:
    """Forge where a source went, which file it was, or whose it is; or add lines for all."""
    journals = sorted((stage.out / ".run" / "deletions").glob("*.jsonl"))
    journals = [path for path in journals if path.is_file() and not path.is_symlink()]
    if not journals:
        return
    path = chance.choice(journals)
    with contextlib.suppress(ValueError, OSError, LookupError, TypeError):
        lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        line = chance.choice(lines)
        if chance.random() < 0.3:
            line = line | {"event": chance.choice(EVENTS)}
            lines.append(line)
        for _ in range(chance.choice((1, 2, 3))):
            _forge_line(chance, stage, path.stem, line)
        path.write_text("".join(json.dumps(one) + "\n" for one in lines))


EVENTS = ("intent", "deleted", "found_gone", "kept", "undecided", "trashed", "restored")


def _forge_line(chance: random.Random, stage: Stage, shard: str, line: dict[str, Any]) -> None:
    keys = stage.scenario.made.keys
    field = chance.choice(("trash", "file", "key", "source", "event", "authorised_by"))
    roots = (stage.outside, stage.scenario.disk_folder, stage.out, stage.scenario.made.data_folder)
    if field == "trash":
        root = chance.choice((*roots, stage.scenario.disk_folder / "trash"))
        middle = chance.choice((shard, "shard-000001", "..", ""))
        line["trash"] = chance.choice((f"{root}/{middle}/{line['source']}", str(root), ""))
    elif field == "file":
        known = stage.outside / "precious.npz"
        status = chance.choice((known, *stage.scenario.made.sources.values(), known)).lstat()
        line |= {
            "inode": status.st_ino, "mtime_ns": status.st_mtime_ns, "size_bytes": status.st_size,
        }  # fmt: skip
    elif field == "key":
        line["key"] = chance.choice(keys)
    elif field == "source":
        other = stage.scenario.made.sources[chance.choice(keys)]
        relative = other.relative_to(stage.scenario.made.data_folder).as_posix()
        line["source"] = chance.choice((relative, "extra.npz", "link/precious.npz"))
    elif field == "event":
        line["event"] = chance.choice(EVENTS)
    else:
        line["authorised_by"] = chance.choice(("", "delete --yes (consent x)", "(consent ../x)"))


def forge_consent(chance: random.Random, stage: Stage) -> None:
    """Let a consent allow more than the person did, in another place, in somebody else's name."""
    consents = sorted((stage.out / ".run" / "consents").glob("*.json"))
    consents = [path for path in consents if path.is_file() and not path.is_symlink()]
    if not consents:
        return
    path = chance.choice(consents)
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        fields = json.loads(path.read_bytes())
        fields |= chance.choice(
            (
                {"shards": [[0, 10**6]]},
                {"shards": [[5, 1]]},
                {"trash": str(stage.outside)},
                {"trash": str(stage.scenario.made.data_folder)},
                {"discard_members": ["metadata.npy", ""]},
                {"copies": [str(stage.out)]},
                {"name": "another"},
                {"uid": 10**6},
                {"plans": dict.fromkeys(fields.get("plans", ()), 1e300)},
            )
        )
        path.write_text(json.dumps(fields))


def tamper_consistently(chance: random.Random, stage: Stage) -> None:
    """Change the plan or its samples, and put every hash right that can be put right."""
    folder = stage.out / ".run" / "plans" / "0000"
    if any(path.is_symlink() or path.is_fifo() for path in stage.out.rglob("*")):
        return  # this is not to write through a link itself, nor to wait
    with contextlib.suppress(
        ValueError, OSError, LookupError, TypeError, AttributeError, SettingsError
    ):
        plan = json.loads((folder / "plan.json").read_bytes())
        lines = (folder / "samples.jsonl").read_bytes().splitlines(keepends=True)
        if chance.random() < 0.5:
            place = chance.randrange(len(lines))
            sample = json.loads(lines[place])
            sample["source"] = nasty(chance, stage.outside)
            lines[place] = json.dumps(sample, separators=(",", ":")).encode() + b"\n"
        elif chance.random() < 0.5:
            plan["settings"]["data_folder"] = chance.choice(
                (str(stage.outside), str(stage.out), "/", ".", str(stage.scenario.disk_folder))
            )
        else:
            edit(chance, plan, stage.outside)
        offset = 0
        everyone = list(lines)
        for shard in plan["shards"]:
            own = b"".join(lines[: shard["samples"]])
            lines = lines[shard["samples"] :]
            shard["lines_offset"], shard["lines_size_bytes"] = offset, len(own)
            shard["lines_sha256"] = sha256_hex(own)
            offset += len(own)
            with (folder / "samples.jsonl").open("r+b" if offset > len(own) else "wb") as stream:
                stream.seek(offset - len(own))
                stream.write(own)
        whole = Plan.model_validate_json(json.dumps(plan))
        plan_id = whole.content_id()
        (folder / "plan.json").write_bytes(whole.model_copy(update={"plan_id": plan_id}).to_json())
        manifest = json.loads((stage.out / "manifest.json").read_bytes())
        for path in (stage.out / ".run" / "records").glob("*.json"):
            facts = json.loads(path.read_bytes()) | {"plan_id": plan_id}
            if chance.random() < 0.5:
                sample = chance.choice(facts["samples"])
                sample["source"]["source"] = chance.choice(
                    [sample["source"]["source"], *(json.loads(line)["source"] for line in everyone)]
                )
            record = ShardRecord.model_validate_json(json.dumps(facts)).to_json()
            path.write_bytes(record)
            for entry in manifest["shards"]:
                if entry["name"] == f"{path.stem}.tar":
                    entry["record_sha256"] = sha256_hex(record)
        manifest["plans"] = [plan_id]
        (stage.out / "manifest.json").write_text(json.dumps(manifest))

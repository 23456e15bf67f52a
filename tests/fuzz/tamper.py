"""Changes to the files of a dataset directory, blind ones and ones whose hashes fit again."""

from __future__ import annotations

import contextlib
import json
import os
import random

from ctrate_convert.schemas.base import sha256_hex
from ctrate_convert.schemas.plan import Plan
from ctrate_convert.schemas.record import ShardRecord
from tests.fuzz.mutations import BYTES, LINES, edit, edited_json, nasty
from tests.fuzz.stage import Stage

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
        tamper_consistently(chance, stage)
    elif how < 8 and path.suffix != ".tar" and path.read_bytes():
        with contextlib.suppress(ValueError):  # damaged by an earlier turn
            path.write_bytes(edited_json(chance, path.read_bytes(), stage.outside))
    elif data := path.read_bytes():
        path.write_bytes(chance.choice((*BYTES, *LINES))(chance, data))


def tamper_consistently(chance: random.Random, stage: Stage) -> None:
    """Change the plan or its samples, and put every hash right that can be put right."""
    folder = stage.out / ".run" / "plans" / "0000"
    if any(path.is_symlink() or path.is_fifo() for path in stage.out.rglob("*")):
        return  # this is not to write through a link itself, nor to wait
    with contextlib.suppress(ValueError, OSError, LookupError, TypeError, AttributeError):
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

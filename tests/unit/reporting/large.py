"""Facts of a conversion on a cluster, as large as one likes, without converting anything."""

from __future__ import annotations

import dataclasses
from collections import Counter
from datetime import UTC, datetime

import numpy as np

from ctrate_convert.checking.report import ShardFacts
from ctrate_convert.checking.timeline import Freed
from ctrate_convert.formats.members import LABEL_NAMES
from ctrate_convert.reporting.course import ShardRun
from ctrate_convert.reporting.facts import Facts
from ctrate_convert.store.attempts import PastAttempt
from ctrate_convert.store.records.attempt import AttemptEnd, AttemptProgress, AttemptStart, EndCause

BEGAN_S = datetime(2026, 3, 2, 8, 0, tzinfo=UTC).timestamp()
EACH = 100


def _text(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds")


def _attempt(
    name: str, task: int, host: str, start_s: float, lasted_s: float, outcome: str | None
) -> PastAttempt:
    start = AttemptStart(
        attempt=name,
        tasks=(task,),
        host=host,
        pid=1,
        started=_text(start_s),
        scheduler={"job_id": str(1000 + task)},
        workers=4,
    )
    progress = AttemptProgress(
        time=_text(start_s + lasted_s),
        samples_done=1,
        samples_total=EACH,
        source_bytes_done=1,
        source_bytes_total=2,
        shards_done=0,
        shards_total=1,
        freed_bytes=0,
    )
    end = None
    if outcome is not None:
        end = AttemptEnd(
            attempt=name,
            outcome=outcome,  # type: ignore[arg-type]
            cause=EndCause.DONE if outcome == "done" else EndCause.ERROR,
            reason="" if outcome == "done" else "a worker was killed by SIGKILL",
            traceback="",
            finished=_text(start_s + lasted_s),
            elapsed_s=lasted_s,
            shards_done=1,
            shards_failed=(),
            samples_converted=EACH,
            samples_failed=0,
            max_rss_bytes=2**31,
        )
    return PastAttempt(start, progress, end, None)


def on_a_cluster(facts: Facts, shards: int, nodes: int = 12, seed: int = 0) -> Facts:
    """The same facts as if ``shards`` had been converted, a task each, with failures on the way."""
    chance = np.random.default_rng(seed)
    free = np.full(nodes * 3, BEGAN_S)
    attempts, runs, freed, each = [], [], [], []
    for task in range(shards):
        ready_s = BEGAN_S
        for turn in range(4):
            place = int(np.argmin(free))
            start_s, lasted_s = max(float(free[place]), ready_s) + 5, float(chance.gamma(9, 40))
            ends_well = turn == 3 or chance.random() > 0.07
            bad = str(chance.choice(["failed", "interrupted", ""]))
            outcome = "done" if ends_well else bad or None
            host, name = f"node{place % nodes:03d}", f"{task:06d}-{turn}"
            free[place] = ready_s = start_s + lasted_s
            attempts.append(_attempt(name, task, host, start_s, lasted_s, outcome))
            if ends_well:
                break
        source, made = int(chance.normal(29e9, 2e9)), int(chance.normal(21e9, 2e9))
        failed = int(chance.random() < 0.05)
        runs.append(ShardRun(name, host, task, task, start_s, lasted_s, source, made, failed))
        freed.append(Freed(start_s + lasted_s + 60, source))
        each.append(
            ShardFacts(
                task, EACH - failed, failed, source, 2 * source, int(21e9 * chance.normal(1, 0.02)),
                made, None, lasted_s * 3.7, lasted_s,
            )
        )  # fmt: skip
    attempts.sort(key=lambda one: one.start.started)
    number = shards * EACH
    rows = chance.choice([512, 768, 1024], number, p=[0.8, 0.1, 0.1])
    slices = chance.normal(320, 90, number).clip(100, 900).astype(int)
    volumes = dataclasses.replace(
        facts.volumes,
        number=number,
        stored_bytes=(rows.astype(np.int64) ** 2 * slices).tolist(),
        times_smaller=chance.gamma(60, 0.04, number).tolist(),
        errors_hu=[*np.zeros(number // 2), *chance.lognormal(-2, 0.6, number - number // 2)],
        labelled=number,
        shapes=Counter(),
        spacings_mm=Counter(),
        labels=Counter(),
    )  # fmt: skip
    volumes.shapes.update((int(s), int(r), int(r)) for s, r in zip(slices, rows, strict=True))
    between = chance.choice([0.75, 1.0, 1.5, 3.0], number)
    in_plane = chance.normal(0.72, 0.08, number).round(4)
    volumes.spacings_mm.update(zip(between.tolist(), in_plane.tolist(), strict=True))
    for place, label in enumerate(LABEL_NAMES):
        volumes.labels[label] = int(number * 0.5 / (place + 1))
    report = dataclasses.replace(facts.report, shards=each, workers=nodes * 12)
    return dataclasses.replace(
        facts, runs=runs, attempts=attempts, freed=freed, volumes=volumes, report=report,
        tasks={task: task for task in range(shards)},
    )  # fmt: skip

"""Make a few views before a plan of views promises anything: their size, their CPU time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ctrate_convert.errors import SampleError
from ctrate_convert.planning.probe.trials import convert_alone
from ctrate_convert.store.durable import scratch_directory
from ctrate_convert.store.records.plan import PlannedSample, PlanSettings, Probe, ProbeRow

_MADE = 3
"""Views to make unless a person asks for another number; each takes a second."""


@dataclass(frozen=True)
class ViewsProbed:
    """What making a few views cost; ``share`` is that of the elements' bytes that is stored.

    ``all_bytes`` and ``all_views`` are those of the whole plan, of elements that nothing
    compresses.
    """

    settings: PlanSettings
    made: int
    failed: tuple[str, ...]
    share: float
    cpu_s: float
    largest_bytes: int
    all_bytes: int
    all_views: int

    def array_bytes(self, plain_bytes: int) -> int:
        """Return the predicted size of a view's array in its member."""
        return round(plain_bytes * self.share)

    def probe(self, output_bytes: int) -> Probe:
        """Return the probe's record; all views of the plan take ``output_bytes``."""
        scratch = self.array_bytes(self.largest_bytes) if self.settings.encoding == "b2nd" else 0
        row = ProbeRow(
            encoding=self.settings.encoding,
            dtype=self.settings.dtype,
            step=None,
            failed_volumes=len(self.failed),
            failure=self.failed[0] if self.failed else "",
            output_bytes=output_bytes,
            scratch_bytes=scratch,
            max_error_hu=0.0,
            max_integer_error=0.0,
            cpu_s=self.cpu_s * self.all_views / self.made,
            chosen=True,
        )
        return Probe(
            volumes=self.made,
            unreadable=len(self.failed),
            integer_volumes=0,
            volume_bytes=self.all_bytes,
            intensities={},
            rows=(row,),
        )


def probe_views(
    samples: Sequence[PlannedSample],
    settings: PlanSettings,
    scratch: Path,
    on_made: Callable[[int, int], None] = lambda done, total: None,
) -> ViewsProbed | None:
    """Make the views of a few of ``samples`` in ``scratch``; None if none was made.

    They lie evenly in the plan. A view that cannot be made costs only itself, as in a run.

    Raises:
        OSError: nothing can be written there.
    """
    wanted = min(len(samples), _MADE if settings.probe is None else settings.probe)
    plain = stored = 0
    cpu_s = 0.0
    failed: list[str] = []
    for number in range(wanted):
        on_made(number, wanted)
        sample = samples[int((number + 0.5) * len(samples) / wanted)]
        try:
            with scratch_directory(scratch / "probe") as folder:
                array, spent_s = convert_alone(sample, settings, folder)
        except SampleError as error:
            failed.append(f"{sample.key}: {error.one_line()}")
            continue
        plain += elements_bytes(sample)
        stored += array.size_bytes
        cpu_s += spent_s
    made = wanted - len(failed)
    if not made:
        return None
    sizes = [elements_bytes(sample) for sample in samples]
    return ViewsProbed(
        settings=settings,
        made=made,
        failed=tuple(failed),
        share=stored / plain,
        cpu_s=cpu_s,
        largest_bytes=max(sizes),
        all_bytes=sum(sizes),
        all_views=len(samples),
    )


def elements_bytes(sample: PlannedSample) -> int:
    """Return the size of a planned view's elements."""
    header = sample.header
    return math.prod(header.shape) * np.dtype(header.dtype).itemsize if header else 0

"""Convert a sample of the volumes for real, in every way, before a plan promises anything.

The sample is stratified and follows from the headers alone, and so do all resulting bytes; only
seconds differ between two probes. Of a large volume a part is converted, see `cut_part`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ctrate_convert.errors import Interrupted, SampleError
from ctrate_convert.formats.tar import TarWriter
from ctrate_convert.planning.intensity import Scale, error_in_hu
from ctrate_convert.planning.probe.choice import Volume, choose
from ctrate_convert.planning.probe.part import PART_BYTES, PART_KEY, Part, cut_part
from ctrate_convert.planning.probe.peek import MANY_PIECES, peek
from ctrate_convert.shards.readback import read_shard
from ctrate_convert.shards.sample import convert_sample
from ctrate_convert.store.durable import PartialFile, scratch_directory
from ctrate_convert.store.records.plan import DType, Encoding, PlannedSample, PlanSettings
from ctrate_convert.store.records.record import ArrayRecord

_ENCODINGS: tuple[Encoding, ...] = ("npy", "npy.gz", "b2nd")
_HU_STEP = 0.001
_UNEXPECTED = "unexpected"
_PATIENCE_S = 30.0
"""The time limit for slow storage; on other storage the sample takes a few seconds."""


class Candidate(NamedTuple):
    """One way to store the arrays, by the options that ask for it."""

    encoding: Encoding
    dtype: DType
    step: float | None


@dataclass(frozen=True)
class Trial:
    """The result of storing one probed volume in one way, as if it had been converted whole."""

    volume: Volume
    candidate: Candidate
    array_bytes: float
    cpu_s: float
    max_error_hu: float


@dataclass
class Findings:
    """All findings of a probe.

    ``failures``: a key and a reason, by candidate. ``unreadable``: by key, why no candidate could
    hold the volume. ``surprises`` name errors that are no known fault of a volume.
    """

    population: Sequence[Volume]
    candidates: Sequence[Candidate]
    trials: list[Trial] = field(default_factory=list)
    failures: dict[Candidate, list[tuple[str, str]]] = field(default_factory=dict)
    looked: list[Scale] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    surprises: list[str] = field(default_factory=list)


def chosen_candidate(settings: PlanSettings) -> Candidate:
    """Return the candidate that the plan's own settings ask for."""
    return Candidate(settings.encoding, settings.dtype, settings.step)


def candidates(settings: PlanSettings, population: Sequence[Volume]) -> list[Candidate]:
    """Return every encoding with every array type that may do, the plan's own first.

    ``int16`` is a candidate for floats that hold whole numbers, and with a step for HU/1000.
    """
    own = chosen_candidate(settings)
    if settings.layout == "ctclip":  # its readers expect nothing else
        return [own]
    types: list[tuple[DType, float | None]] = [("auto", None), ("float16", None)]
    if any(volume.dtype.kind == "f" for volume in population):
        types += [("int16", None), ("int16", _HU_STEP)]
    every = [Candidate(encoding, *kind) for kind in types for encoding in _ENCODINGS]
    return [own, *(candidate for candidate in every if candidate != own)]


def probe(
    population: Sequence[Volume],
    settings: PlanSettings,
    sample_of: Callable[[str], PlannedSample],
    scratch: Path,
    on_volume: Callable[[int, int], None] = lambda done, total: None,
) -> Findings:
    """Convert a few of ``population``, each as every candidate, in ``scratch``.

    ``on_volume`` is called with how many are done, and how many were chosen.
    An error with a volume costs only that volume, as it would in a run.

    Raises:
        OSError: nothing can be written there.
    """
    with contextlib.suppress(ImportError):  # told by the first volume that needs it
        import blosc2  # noqa: F401 - its half second is nobody's conversion

    found = Findings(population, candidates(settings, population))
    patience_s = _PATIENCE_S if _may_be_impatient(settings) else float("inf")
    started = time.monotonic()
    chosen = choose(population, settings.probe)
    for number, volume in enumerate(chosen):
        on_volume(number, len(chosen))
        # At least one volume is probed, however slow the storage.
        if found.trials and time.monotonic() - started > patience_s:
            break
        failed: list[str] = []
        with scratch_directory(scratch / "probe") as folder, _sample_boundary(failed):
            _try_volume(found, volume, sample_of(volume.key), settings, folder)
        found.unreadable.update((volume.key, reason) for reason in failed)
    return found


@contextlib.contextmanager
def _sample_boundary(reasons: list[str]) -> Iterator[None]:
    """Add to ``reasons`` why the block failed, if a run would charge the failure to the sample."""
    try:
        yield
    except (OSError, Interrupted):
        raise
    except SampleError as error:
        reasons.append(error.one_line())
    except Exception as error:  # noqa: BLE001 - the sample boundary: one broken volume costs only itself
        reasons.append(f"{_UNEXPECTED} {type(error).__name__}: {error}")


def _may_be_impatient(settings: PlanSettings) -> bool:
    """Return False if a person asked for so many volumes, or if the cut into shards needs them."""
    return settings.probe is None and settings.shard_size_gb is None


def _try_volume(
    found: Findings, volume: Volume, sample: PlannedSample, settings: PlanSettings, folder: Path
) -> None:
    source = Path(settings.data_folder) / sample.source
    part = None
    if volume.array_bytes > PART_BYTES:
        part = cut_part(source, settings.array_key, folder / "part.npz")
        sample = sample.model_copy(update={"source": part.path.name})
        where = {"data_folder": str(folder), "array_key": PART_KEY}
        settings = settings.model_copy(update=where)
    if not volume.stratum.deflated:
        share = peek(source, MANY_PIECES)
        volume = volume.packed(share or 1.0)
    trials = []
    failed: list[tuple[Candidate, str]] = []
    same: dict[Candidate, Trial] = {}
    for candidate in found.candidates:
        # The plan's own way is tried on every volume, since the plan tells how many fail in it.
        if candidate in found.failures and candidate != found.candidates[0]:
            continue  # one failure rules it out
        update = {"encoding": candidate.encoding, "dtype": candidate.dtype, "step": candidate.step}
        does = _what_it_does(candidate, volume.dtype)
        reasons: list[str] = []
        if does not in same:
            with _sample_boundary(reasons):
                array, cpu_s = convert_alone(sample, settings.model_copy(update=update), folder)
                same[does] = _trial(volume, candidate, array, cpu_s, part)
        failed += [(candidate, reason) for reason in reasons]
        if not reasons:
            trials.append(dataclasses.replace(same[does], candidate=candidate))
    if not trials:
        found.unreadable[volume.key] = failed[0][1]
        return
    found.trials += trials
    for candidate, reason in failed:
        found.failures.setdefault(candidate, []).append((volume.key, reason))
        if reason.startswith(_UNEXPECTED):
            found.surprises.append(f"{volume.key} as {_name(candidate)}: {reason}")
    intercept = sample.metadata.get("RescaleIntercept", "")
    found.looked.append(Scale(volume.key, array.intensity, intercept))


def _name(candidate: Candidate) -> str:
    step = f", step {candidate.step:g}" if candidate.step else ""
    return f"{candidate.encoding} {candidate.dtype}{step}"


def _what_it_does(candidate: Candidate, source: np.dtype[Any]) -> Candidate:
    """Return one candidate for all that do the same with a volume of type ``source``."""
    if source.kind != "f" and np.can_cast(source, np.int16):
        # int16 holds these integers exactly: no step is used, and ``auto`` chooses int16 as well.
        dtype: DType = "float16" if candidate.dtype == "float16" else "auto"
        return candidate._replace(dtype=dtype, step=None)
    if source.kind == "f" and candidate.dtype == "auto":
        return candidate._replace(dtype="float16")
    return candidate


def _trial(
    volume: Volume, candidate: Candidate, array: ArrayRecord, cpu_s: float, part: Part | None
) -> Trial:
    return Trial(
        volume=volume,
        candidate=candidate,
        array_bytes=array.size_bytes * (part.times if part else 1.0),
        cpu_s=part.cpu_of_whole(cpu_s) if part else cpu_s,
        max_error_hu=error_in_hu(array.max_abs_error, array.intensity),
    )


def convert_alone(
    sample: PlannedSample, settings: PlanSettings, folder: Path
) -> tuple[ArrayRecord, float]:
    """Convert the sample as a shard of its own, read it back, throw it away.

    Return the array's record and the CPU seconds.
    """
    clock = time.process_time()
    with PartialFile(folder / "probe.tar") as partial:
        tar = TarWriter(partial)
        converted = convert_sample(sample, settings, tar, folder, lambda _: None)
        tar.finish()
        # A run reads its shards back too, so this time belongs to the forecast.
        read_shard(partial.path, [converted], settings.layout).require_sound()
    return converted.array, time.process_time() - clock

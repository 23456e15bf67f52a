"""Predict bytes, error and CPU of the whole plan, for every way to store it, from a probe.

The prediction for a kind of volumes is the result for its probed volumes, scaled by the quantity to
which it is proportional. A kind without a probed volume is predicted from the nearest kind.

The advised way is the smallest of those that can hold every probed volume, keep integers exact and
anything else within half a Hounsfield unit, and take at most three times the CPU of the fastest.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Hashable, Iterable

import numpy as np

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.cast import output_dtype
from ctrate_convert.formats.npy_header import header_bytes
from ctrate_convert.planning.probe.choice import Volume, by_stratum, sum_up
from ctrate_convert.planning.probe.trials import Candidate, Findings, Trial
from ctrate_convert.store.records.plan import Probe, ProbeRow

MOST_ERROR_HU = 0.5
MOST_CPU = 3.0

_Kin = tuple[Hashable, ...]


@dataclasses.dataclass
class _Sum:
    packed_bytes: float = 0.0
    voxels: int = 0
    array_bytes: float = 0.0
    cpu_s: float = 0.0

    def add(self, trial: Trial) -> None:
        self.packed_bytes += trial.volume.packed_bytes
        self.voxels += trial.volume.voxels
        self.array_bytes += trial.array_bytes
        self.cpu_s += trial.cpu_s


class ProbeEstimate:
    """The predicted result of each candidate for any volume of the plan."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self._volumes = {volume.key: volume for volume in findings.population}
        strata = by_stratum(findings.population)
        self._kinds = [sum_up(stratum, volumes) for stratum, volumes in strata.items()]
        self._largest = [
            max(volumes, key=lambda volume: volume.voxels) for volumes in strata.values()
        ]
        self._sums: dict[tuple[Candidate, _Kin], _Sum] = {}
        for trial in findings.trials:
            for kin in _kinship(trial.volume):
                self._sums.setdefault((trial.candidate, kin), _Sum()).add(trial)

    def chosen_array_bytes(self, key: str) -> int | None:
        """Return the size of a volume's array member by the plan's settings; None if unknown."""
        volume = self._volumes.get(key)
        return self.array_bytes(self.findings.candidates[0], volume) if volume else None

    def array_bytes(self, candidate: Candidate, volume: Volume) -> int | None:
        """Return the size of the array member; None if nothing is known of how it compresses."""
        if candidate.encoding == "npy":
            return _plain_bytes(candidate, volume)
        nearest = self._nearest(candidate, volume)
        if nearest is None:
            return None
        kin, total = nearest
        # Without a relative of its type, only the number of voxels compares.
        if kin:
            return round(total.array_bytes * volume.packed_bytes / total.packed_bytes)
        return round(total.array_bytes * volume.voxels / total.voxels)

    def cpu_s(self, candidate: Candidate, volume: Volume) -> float:
        """Return the CPU seconds of the volume's conversion, re-read included."""
        nearest = self._nearest(candidate, volume)
        return nearest[1].cpu_s * volume.voxels / nearest[1].voxels if nearest else 0.0

    def _nearest(self, candidate: Candidate, volume: Volume) -> tuple[_Kin, _Sum] | None:
        for kin in _kinship(volume):
            if (candidate, kin) in self._sums:
                return kin, self._sums[candidate, kin]
        return None

    def probe(self, output_bytes: int) -> Probe | None:
        """Return the probe's record; None if nothing was probed.

        The chosen way takes ``output_bytes``; the other ways differ from it by their arrays.
        """
        findings = self.findings
        if not findings.looked:
            return None
        chosen = findings.candidates[0]
        beside_arrays = output_bytes - self._arrays_bytes(chosen)
        rows = [
            self._row(candidate, beside_arrays + self._arrays_bytes(candidate))
            for candidate in findings.candidates
            if candidate == chosen or candidate not in findings.failures
        ]
        probed = {trial.volume.key: trial.volume for trial in findings.trials}
        return Probe(
            volumes=len(probed),
            unreadable=len(findings.unreadable),
            integer_volumes=sum(_is_integer(volume) for volume in probed.values()),
            volume_bytes=sum(volume.array_bytes for volume in self._kinds),
            intensities=dict(sorted(Counter(one.intensity for one in findings.looked).items())),
            rows=tuple(_with_advice(rows)),
        )

    def _arrays_bytes(self, candidate: Candidate) -> int:
        known = (self.array_bytes(candidate, volume) for volume in self._kinds)
        return sum(size_bytes or 0 for size_bytes in known)

    def _row(self, candidate: Candidate, output_bytes: int) -> ProbeRow:
        findings = self.findings
        trials = [trial for trial in findings.trials if trial.candidate == candidate]
        failures = findings.failures.get(candidate, [])
        integers = (trial for trial in trials if _is_integer(trial.volume))
        return ProbeRow(
            **candidate._asdict(),
            failed_volumes=len(failures),
            failure=": ".join(failures[0]) if failures else "",
            output_bytes=output_bytes,
            scratch_bytes=max(self._scratch_bytes(candidate, v) for v in self._largest),
            max_error_hu=_largest_error(trials),
            max_integer_error=_largest_error(integers),
            cpu_s=sum(self.cpu_s(candidate, volume) for volume in self._kinds),
            chosen=candidate == findings.candidates[0],
        )

    def _scratch_bytes(self, candidate: Candidate, volume: Volume) -> int:
        """Return the size of the scratch files that a conversion needs.

        A Fortran-order volume is reordered in such a file, and a Blosc2 frame grows in one.
        """
        turned = _plain_bytes(candidate, volume) if volume.stratum.fortran_order else 0
        frame = self.array_bytes(candidate, volume) if candidate.encoding == "b2nd" else 0
        return turned + (frame or 0)


def _kinship(volume: Volume) -> tuple[_Kin, ...]:
    """Return the groups of a volume, nearest first: its kind, its family, its type, and all."""
    stratum = volume.stratum
    return (stratum, stratum.family, (stratum.dtype, stratum.deflated), ())


def _is_integer(volume: Volume) -> bool:
    return volume.dtype.kind != "f"


def _plain_bytes(candidate: Candidate, volume: Volume) -> int:
    """Return the exact size of an npy member; 0 if the type cannot be stored so."""
    try:
        target = np.dtype(output_dtype(volume.dtype.str, candidate.dtype))
    except SampleError:
        return 0
    # Every shape gives a header of the same length, which is padded.
    return len(header_bytes(target, (volume.voxels, 1, 1))) + volume.voxels * target.itemsize


def _largest_error(trials: Iterable[Trial]) -> float:
    return max((trial.max_error_hu for trial in trials), default=0.0)


def _with_advice(rows: list[ProbeRow]) -> list[ProbeRow]:
    sound = [
        row
        for row in rows
        if not row.failure and row.max_integer_error == 0 and row.max_error_hu <= MOST_ERROR_HU
    ]
    fastest = min((row.cpu_s for row in rows), default=0.0)
    within_reason = [row for row in sound if row.cpu_s <= MOST_CPU * fastest]
    if not within_reason:
        return rows
    best = min(within_reason, key=lambda row: row.output_bytes)
    return [row.model_copy(update={"advised": row is best}) for row in rows]

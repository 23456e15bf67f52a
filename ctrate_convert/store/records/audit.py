"""The records of an audit: a summary, and a list with one line for each source that is gone.

The program writes these and never reads them back, so files of earlier versions stay valid.
"""

from __future__ import annotations

from typing import Literal

from ctrate_convert.store.records.base import Record, RelativePath, Sha256, SizeBytes
from ctrate_convert.store.records.consent import Consent

Told = Literal["journal", "open intent", "nothing"]
"""The evidence for a source that is gone.

With ``open intent``, the deleting process was killed before it could write the outcome.
"""

TrashState = Literal["", "in the trash", "removed from the trash since", "not to be told"]

RemarkKind = Literal["journal", "consent", "source", "record", "plan", "shard"]

DAMAGE_KINDS: frozenset[RemarkKind] = frozenset(("record", "plan", "shard"))
"""The kinds of damage that keep the audit from vouching for the sources concerned."""


class AuditRemark(Record):
    """Something other than a source that the audit could not rely on or could not read."""

    kind: RemarkKind
    where: str
    what: str


class QuotedConsent(Record):
    """A person's consent, with the gone sources of the journal lines that name it."""

    consent: Consent
    gone_sources: int
    gone_bytes: SizeBytes


class ComparedSource(Record):
    """A source that is still there, compared with its sample in its shard.

    ``difference`` is empty if the shard gives back the source's voxels. ``left_out`` names what
    else the source holds and the shard does not. ``unreadable`` says why the source could not be
    compared. ``went`` is True if another process took the source away before its turn.
    """

    key: str
    data_folder: str
    source: RelativePath
    shard: str
    difference: str
    left_out: tuple[str, ...]
    unreadable: str
    went: bool


class SourcesCompared(Record):
    """The result of comparing the sources that are still there with their shards.

    ``there`` counts the converted sources that are there. ``equal`` counts those of the
    ``compared`` ones whose voxels their shards give back; these include the ``not_wholly_held``
    ones.
    """

    there: int
    compared: int
    equal: int
    went_meanwhile: int
    different: tuple[ComparedSource, ...]
    not_wholly_held: tuple[ComparedSource, ...]
    unreadable: tuple[ComparedSource, ...]


class AuditedSource(Record):
    """A source that is gone, the evidence for it, and the member that holds its volume.

    ``event``, ``time`` and ``authorised_by`` come from the journal. ``shard``, ``member`` and the
    digests come from the record and are empty if no record holds the sample. ``checked`` is True if
    this audit read all members of the sample. ``finding`` is empty if nothing is wrong.
    """

    schema_number: Literal[2] = 2
    key: str
    data_folder: str
    source: RelativePath
    size_bytes: SizeBytes
    told: Told
    event: str
    time: str
    authorised_by: str
    trash: str
    trash_state: TrashState
    shard: str
    shard_sha256: str
    member: str
    array_blake3: str
    members: int
    checked: bool
    finding: str


class AuditSummary(Record):
    """The totals of an audit, with its user, host and time.

    ``gone_sources`` is the sum of the ``deleted_sources`` and the ``untold_sources``.
    ``open_intents`` counts the deleted sources whose outcome the journal lacks. ``put_back`` names
    sources that the journal says were deleted although a file of that name is there again; these
    are not in the list. ``share`` is the part of the gone sources in recorded shards that ``seed``
    chose for checking. ``checked_now`` counts samples, ``members_sound_now`` the members of those
    without a finding. ``consents`` are all that people gave, oldest first. ``against_sources`` is
    None unless the comparison with the sources was requested. If jobs read the shards before,
    ``read_from`` and ``read_until`` tell when the first and the last of them was begun.
    """

    schema_number: Literal[3] = 3
    program_version: str
    time: str
    user: str
    host: str
    out: str
    data_folders: tuple[str, ...]
    plans: tuple[Sha256, ...]
    share: float
    seed: int
    gone_sources: int
    gone_bytes: int
    deleted_sources: int
    deleted_bytes: int
    open_intents: int
    untold_sources: int
    in_the_trash: int
    removed_from_the_trash: int
    put_back: tuple[RelativePath, ...]
    in_a_recorded_shard: int
    checked_now: int
    members_read_now: int
    members_sound_now: int
    shards_read_whole: int
    read_bytes: int
    findings: int
    consents: tuple[QuotedConsent, ...]
    against_sources: SourcesCompared | None
    read_from: str = ""
    read_until: str = ""
    remarks: tuple[AuditRemark, ...]
    verdict: str
    list_file: str
    list_sha256: Sha256

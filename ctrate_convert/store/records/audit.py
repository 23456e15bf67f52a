"""The files of an audit: a summary, and a list with one line a source that is gone.

The program writes these and never reads them back: an earlier version's stay as they are.
"""

from __future__ import annotations

from typing import Literal

from ctrate_convert.store.records.base import Record, RelativePath, Sha256, SizeBytes
from ctrate_convert.store.records.consent import Consent

Told = Literal["journal", "open intent", "nothing"]
"""What tells of a source that is gone. ``open intent``: who deleted it had no time to say so."""

TrashState = Literal["", "in the trash", "removed from the trash since", "not to be told"]

RemarkKind = Literal["journal", "consent", "source", "record", "plan", "shard"]

DAMAGE_KINDS: frozenset[RemarkKind] = frozenset(("record", "plan", "shard"))
"""Where these cannot be relied on, the audit cannot vouch for what they would have told."""


class AuditRemark(Record):
    """Something that the audit could not rely on, or look at, and that is no source itself."""

    kind: RemarkKind
    where: str
    what: str


class QuotedConsent(Record):
    """A person's consent, and the sources that are gone by journal lines which name it."""

    consent: Consent
    gone_sources: int
    gone_bytes: SizeBytes


class ComparedSource(Record):
    """A source that is still there, beside its sample in its shard.

    ``difference`` is empty where the shard gives the source's voxels back; ``left_out`` names what
    else the source holds and the shard does not. ``unreadable`` says why it could not be compared.
    ``went``: it was there, and another process took it before its turn came.
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

    ``there`` counts the converted ones that are there, ``equal`` those of the ``compared`` whose
    voxels their shards give back: ``not_wholly_held`` are among these.
    """

    there: int
    compared: int
    equal: int
    went_meanwhile: int
    different: tuple[ComparedSource, ...]
    not_wholly_held: tuple[ComparedSource, ...]
    unreadable: tuple[ComparedSource, ...]


class AuditedSource(Record):
    """One source that is gone: what tells of it, and the member that holds its volume.

    ``event``, ``time`` and ``authorised_by`` are the journal's. ``shard``, ``member`` and the
    digests are the record's, and empty where no record holds the sample. ``checked``: all members
    of the sample were read now; ``finding`` is empty where nothing is wrong.
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
    """The sums of an audit, with who made it, where and when.

    ``gone_sources`` are the ``deleted_sources`` (``open_intents`` of them without the journal's
    last word) and the ``untold_sources``. ``put_back``: deleted by the journal, but a file of that
    name is there again; these are not in the list. ``share`` of what is in a recorded shard was
    chosen by ``seed``; ``checked_now`` counts samples, ``members_sound_now`` the members of those
    without a finding. ``consents`` are all that persons gave, oldest first; ``against_sources`` is
    there where it was asked for.
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
    remarks: tuple[AuditRemark, ...]
    verdict: str
    list_file: str
    list_sha256: Sha256

"""The gate: the only code path that deletes a shard's sources or moves them to a trash.

The gate first checks consent, storage, the shard and its copies. Then, for each source, it writes
the intent to the journal, calls `let_go`, and writes the outcome to the journal.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ctrate_convert.deleting.aside import put_back
from ctrate_convert.deleting.compare import Pair, compare
from ctrate_convert.deleting.consents import require_consent
from ctrate_convert.deleting.copies import why_no_copy
from ctrate_convert.deleting.entries import Entries
from ctrate_convert.deleting.let_go import Fate, Outcome, Take, let_go, unlink
from ctrate_convert.deleting.outcome import Deletion, Kept
from ctrate_convert.deleting.source_states import refuse_views
from ctrate_convert.deleting.stored_shard import StoredShard, recorded_shard
from ctrate_convert.deleting.trash import Mover, lies_in_trash, place_in_trash
from ctrate_convert.deleting.trusted import require_not_in_memory, require_trusted
from ctrate_convert.errors import DamageError, RefusedError, environment_problem
from ctrate_convert.reading.index import stored_sample
from ctrate_convert.reading.shard_file import ShardFile
from ctrate_convert.shards.readback import FileIdentity, read_shard
from ctrate_convert.store.durable import fsync_open_directory, open_beneath
from ctrate_convert.store.fresh import fresh_status
from ctrate_convert.store.journals import restored_lines, restored_words
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plans import load_samples
from ctrate_convert.store.presence import Presence, presence
from ctrate_convert.store.records.consent import Consent
from ctrate_convert.store.records.journal import Event
from ctrate_convert.store.records.plan import Plan, PlannedShard
from ctrate_convert.store.records.record import ConvertedSample, ShardRecord, TarRecord


@dataclass(frozen=True)
class Release:
    """One shard whose sources are to be let go, and the consent that allows it.

    ``superseded`` are the samples that count by another copy, in a later shard. ``verified`` is the
    shard's file if this run has just read it from storage and found it sound: the gate then
    compares it without reading it whole a second time.
    """

    dataset: Dataset
    plan: Plan
    shard: PlannedShard
    record: ShardRecord
    consent_name: str
    superseded: frozenset[str] = frozenset()
    verified: FileIdentity | None = None


def release_sources(
    release: Release,
    check_stop: Callable[[], None] = lambda: None,
    why_stop: Callable[[], str] = lambda: "",
    on_source: Callable[[], None] = lambda: None,
) -> Deletion:
    """Let go what the shard holds, source by source; keep the rest, with the reason.

    After a kill, a source has one of its names and an open intent, and the next call finishes the
    work. ``why_stop`` is called right before each source goes, and ``on_source`` after each of them
    that was compared.

    Raises:
        RefusedError: no consent names this shard, its storage is not trusted, or a copy is missing.
        DamageError: the shard is not what its record says; every source stays.
        EnvironmentProblem: shard or journal cannot be used; nothing is deleted without an intent.
        Interrupted: ``check_stop`` raised it; the source at hand has its name back.
    """
    dataset, shard = release.dataset, release.shard
    refuse_views(dataset, [release.plan])
    consent = require_consent(dataset, release.consent_name, release.plan, shard.index)
    require_trusted(dataset)
    require_not_in_memory(dataset.shard(shard.index))
    tar = release.record.tar
    if tar is None:  # every sample failed: no file was published, and no source may go
        return Deletion()
    identity = _sound_identity(release, tar)
    no_copy = why_no_copy(dataset.shard(shard.index), tar.sha256, consent.copies)
    if no_copy:
        raise RefusedError(no_copy, where=dataset.shard(shard.index))
    try:
        readable = recorded_shard(dataset, shard.index, tar)
        with StoredShard(readable) as opened:
            one = _Releasing(release, consent, opened, identity, check_stop, why_stop, on_source)
            return one.run()
    except OSError as error:
        raise environment_problem(
            error, "deleting sources, and noting it in the journal"
        ) from error


def _sound_identity(release: Release, tar: TarRecord) -> FileIdentity:
    """Return the published file's identity after reading it whole and checking it by its record."""
    path = release.dataset.shard(release.shard.index)
    try:
        now = FileIdentity.of(fresh_status(path))
        # The identity includes the change time, which nobody can set: if it is equal, the file
        # still has the bytes that this run has read.
        if now == release.verified:
            return now
        # The digests of the stored bytes suffice here: the comparison decodes every voxel later.
        read = read_shard(
            path, release.record.converted, release.plan.settings.layout, decode=False
        )
    except OSError as error:
        raise DamageError(f"a recorded shard cannot be read: {error}", where=path) from error
    read.require_sound()
    if read.sha256 != tar.sha256:
        raise DamageError(
            "a recorded shard has changed outside every member",
            where=path,
            seen=f"SHA-256 {read.sha256[:16]}…",
            expected=f"{tar.sha256[:16]}…",
        )
    # Not ``now``: another file may have taken the name before this one was opened.
    return read.identity


class _Releasing:
    """The sources of one shard, while the shard is open."""

    def __init__(
        self,
        release: Release,
        consent: Consent,
        opened: ShardFile,
        identity: FileIdentity,
        check_stop: Callable[[], None],
        why_stop: Callable[[], str],
        on_source: Callable[[], None],
    ) -> None:
        self._release = release
        self._folder = Path(release.plan.settings.data_folder)
        self._shard = release.shard.index
        self._consent = consent
        self._opened = opened
        self._identity = identity
        self._check_stop = check_stop
        self._why_stop = why_stop
        self._on_source = on_source
        self._entries = Entries(release.dataset, self._shard, self._folder, consent)
        self._restored = restored_lines(self._entries.lines)
        self._result = Deletion()
        self._touched: set[str] = set()

    def run(self) -> Deletion:
        """Let go every source that may go, and journal the outcome of each."""
        ready = [sample for sample in self._release.record.converted if self._may_go(sample)]
        # One append, and so one fsync, for all intents of the shard. After a stop the rest stay
        # open, and the next command closes them.
        self._entries.write_intents([(sample.key, sample.source) for sample in ready])
        try:
            for sample in ready:
                self._check_stop()
                # Before the attempt: if an exception leaves open whether the file went, its folder
                # is synced all the same.
                self._touched.add(sample.source.source)
                self._note(sample, self._let_go(sample))
                self._on_source()
        finally:
            # The journal must not say that a source is gone before the removal is durable.
            self._sync_folders()
            self._entries.write_outcomes()
        return self._result

    @cached_property
    def _planned(self) -> dict[str, str]:
        release = self._release
        samples = load_samples(release.dataset, release.plan, release.shard)
        return {sample.key: sample.source for sample in samples}

    def _may_go(self, sample: ConvertedSample) -> bool:
        """Return True if the source is to be compared; otherwise note the reason."""
        source = sample.source.source
        if sample.key in self._release.superseded:
            return False
        # A forged record could name any file below the data folder. The plan says which one this
        # sample was made from.
        if self._planned.get(sample.key) != source:
            self._keep(sample, "kept", "the plan does not name this source for this sample")
            return False
        # A killed command may have left it aside, and a source that the checks below keep must have
        # its own name again.
        put_back(self._folder, source)
        seen = presence(self._folder, source, self._entries.folder_inodes.get(sample.key, 0))
        if seen is Presence.GONE:
            if self._entries.missing(sample.key, sample.source):
                # The killed process that took it may not have come to the fsync of its folder.
                self._touched.add(source)
            return False
        if seen is Presence.UNSEEN:
            # If the journal says that the source went, its emptied folder may have been removed
            # since.
            if not self._entries.told_gone(sample.key):
                self._keep(sample, "undecided", "the folder that it is in cannot be seen now")
            return False
        restored = self._restored.get(sample.key)
        # A source that came back is kept for good. If the moved file still lies in the trash, the
        # file here is another one, and is compared like any.
        if restored is not None and not lies_in_trash(restored, self._shard, sample.source):
            self._keep(sample, "kept", restored_words(restored))
            return False
        # A consent to no file was given while no source could be seen, so it allows none.
        if not self._consent.files:
            self._keep(sample, "undecided", "it was not to be seen when the person was asked")
            return False
        return True

    def _let_go(self, sample: ConvertedSample) -> Outcome:
        return let_go(
            self._folder,
            sample.source.source,
            out=self._release.dataset.out,
            compare=lambda descriptor: self._why_not_equal(sample, descriptor),
            last_look=self._last_look,
            take=self._take(sample),
            folder_inode=self._entries.folder_inodes.get(sample.key, 0),
        )

    def _take(self, sample: ConvertedSample) -> Take:
        if not self._consent.trash:
            return unlink
        place = place_in_trash(self._shard, sample.source.source)
        forbidden = (self._folder, self._release.dataset.out)
        return Mover(Path(self._consent.trash), place, forbidden).take

    def _why_not_equal(self, sample: ConvertedSample, descriptor: int) -> str:
        settings = self._release.plan.settings
        pair = Pair(
            descriptor=descriptor,
            where=self._folder / sample.source.source,
            shard=self._opened,
            sample=stored_sample(sample.model_dump(), self._opened.shard, settings.layout),
            settings=settings,
            check_stop=self._check_stop,
        )
        found = compare(pair)
        if found.differences:
            return "its shard does not hold it: " + "; ".join(found.differences)
        lost = [one for one in found.left_out if one.name not in self._consent.discard_members]
        if lost:
            names = ",".join(one.name for one in lost)
            what = "; ".join(f"{one.name} ({one.what})" for one in lost)
            return (
                f"its shard does not hold all of it: {what}; --discard_members {names} lets it go"
            )
        return ""

    def _last_look(self) -> str:
        """Return why the shard or this command has changed, or an empty string."""
        path = self._release.dataset.shard(self._shard)
        try:
            now = FileIdentity.of(fresh_status(path))
        except OSError as error:
            return f"its shard cannot be seen now: {error.strerror}"
        if now != self._identity:
            return "its shard is not the file that was compared any more"
        return self._why_stop()

    def _note(self, sample: ConvertedSample, outcome: Outcome) -> None:
        if outcome.fate is Fate.GONE:
            self._entries.gone(sample.key, sample.source)
        elif outcome.fate is Fate.TAKEN:
            self._entries.taken(sample.key, sample.source)
            self._count(outcome)
        else:
            event: Event = "kept" if outcome.fate is Fate.KEPT else "undecided"
            self._keep(sample, event, outcome.reason)

    def _count(self, outcome: Outcome) -> None:
        if self._consent.trash:
            self._result.trashed_files += 1
            self._result.trashed_bytes += outcome.size_bytes
            self._result.trashes.add(self._consent.trash)
        else:
            self._result.deleted_files += 1
            self._result.freed_bytes += outcome.size_bytes

    def _keep(self, sample: ConvertedSample, event: Event, reason: str) -> None:
        source = sample.source
        self._result.kept.append(Kept(sample.key, source.source, source.size_bytes, reason))
        self._entries.kept(event, sample.key, source, reason)

    def _sync_folders(self) -> None:
        """Make it durable that sources are gone, before the journal says so.

        A folder that is away now is skipped: the next call looks for its sources when it is back.
        """
        # Sources share few folders: one fsync for each folder is enough.
        folders = {str(Path(source).parent): source for source in self._touched}
        for source in folders.values():
            with (
                contextlib.suppress(FileNotFoundError, NotADirectoryError),
                open_beneath(self._folder, source) as (directory, _),
            ):
                fsync_open_directory(directory)

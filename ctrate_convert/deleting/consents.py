"""Write and read consents on disk; only consents that this user alone can write are trusted."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import stat
from collections.abc import Iterable
from datetime import UTC, datetime

from ctrate_convert.errors import DamageError, RefusedError
from ctrate_convert.store.durable import create_once, make_directories
from ctrate_convert.store.fresh import fresh_status
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.base import read
from ctrate_convert.store.records.consent import Consent
from ctrate_convert.store.records.plan import Plan


def new_name() -> str:
    """Return a name for a new consent, unique by time and chance."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S-") + secrets.token_hex(4)


def user_name() -> str:
    """Return the name of the user that this process runs as, whatever the environment says."""
    try:
        # Not getpass.getuser(), which believes LOGNAME and USER.
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user {os.geteuid()}"


def user_id() -> int:
    """Return the id of the user whose rights this process has."""
    return os.geteuid()


def ranges(shards: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Return ``shards`` as ranges, first and last included."""
    found: list[tuple[int, int]] = []
    for shard in sorted(set(shards)):
        if found and found[-1][1] == shard - 1:
            found[-1] = (found[-1][0], shard)
        else:
            found.append((shard, shard))
    return tuple(found)


def record_consent(dataset: Dataset, consent: Consent) -> None:
    """Write the consent, durably, before the first deletion that it allows."""
    make_directories(dataset.consents)
    create_once(dataset.consent(consent.name), consent.to_pretty_json())


def load_consents(dataset: Dataset) -> list[Consent]:
    """Return every readable consent, oldest first. Use it for reports only: it checks no owner."""
    found = []
    for path in dataset.consents.glob("*.json") if dataset.consents.is_dir() else ():
        with contextlib.suppress(DamageError, OSError):
            found.append(read(Consent, path))
    return sorted(found, key=lambda consent: (consent.time, consent.name))


def load_consent(dataset: Dataset, name: str) -> Consent:
    """Return the consent ``name`` if it is ours and nobody else could have written it.

    Raises:
        RefusedError: it cannot be read, somebody else owns it, or others may write to it.
        DamageError: it is no consent.
    """
    path = dataset.consent(name)
    try:
        status = fresh_status(path)
        consent = read(Consent, path)
    except OSError as error:
        raise RefusedError(
            f"the consent to delete cannot be read: {error.strerror}", where=path
        ) from error
    others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    # `fresh_status` follows no link, so a link that leads to a consent is refused here too.
    if status.st_uid != os.geteuid() or others or not stat.S_ISREG(status.st_mode):
        raise RefusedError(
            "the consent to delete is somebody else's, or others can write to it",
            where=path,
            seen=f"user {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}",
            expected=f"user {os.geteuid()}, and nobody else may write",
        )
    # A consent that was copied or renamed is not the one that the person gave under this name.
    if consent.name != name or consent.uid != os.geteuid():
        raise RefusedError("the consent to delete is another one", where=path)
    return consent


def why_not_believed(dataset: Dataset, name: str) -> str | None:
    """Return why nothing is deleted under the consent ``name``; None if the consent is ours."""
    try:
        load_consent(dataset, name)
    except (RefusedError, DamageError) as error:
        return error.one_line()
    return None


def require_consent(dataset: Dataset, name: str, plan: Plan, shard: int) -> Consent:
    """Return the consent ``name`` if it allows deletions of this shard's sources.

    Raises:
        RefusedError: it does not name the shard, or this plan with its present settings; or
            `load_consent` refuses it.
        DamageError: it is no consent.
    """
    consent = load_consent(dataset, name)
    path = dataset.consent(name)
    if not consent.names(shard) or plan.plan_id not in consent.plans:
        raise RefusedError(f"the consent does not name shard {shard} of this plan", where=path)
    if consent.plans[plan.plan_id] != plan.settings.max_error:
        raise RefusedError(
            "the plan accepts another error than the person who consented was told",
            where=path,
            seen=plan.settings.max_error,
            expected=consent.plans[plan.plan_id],
        )
    return consent

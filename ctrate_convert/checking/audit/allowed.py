"""Audit the consents: quote who allowed which deletion, and count what went under each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ctrate_convert.checking.audit.gathered import Evidence
from ctrate_convert.deleting.consents import load_consents
from ctrate_convert.store.journals import consent_named
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.audit import AuditedSource, QuotedConsent
from ctrate_convert.store.records.consent import Consent


def quote_consents(
    dataset: Dataset, evidence: Evidence, sources: Sequence[AuditedSource]
) -> tuple[QuotedConsent, ...]:
    """Return every consent, oldest first, with the gone sources whose journal line names it.

    Remark on each consent that cannot be read, and on lines that name a missing consent.
    """
    consents = {consent.name: consent for consent in load_consents(dataset)}
    for path in sorted(dataset.consents.glob("*.json")) if dataset.consents.is_dir() else ():
        if path.stem not in consents:
            evidence.remark(
                "consent", path, "it cannot be read, or bears another name than its own"
            )
    _remark_on_lines(dataset, evidence, consents)
    files: Counter[str] = Counter()
    size_bytes: Counter[str] = Counter()
    for source in sources:
        name = consent_named(source.authorised_by)
        files[name] += 1
        size_bytes[name] += source.size_bytes
    return tuple(
        QuotedConsent(consent=one, gone_sources=files[name], gone_bytes=size_bytes[name])
        for name, one in consents.items()
    )


def _remark_on_lines(dataset: Dataset, evidence: Evidence, consents: dict[str, Consent]) -> None:
    """Remark, once for each journal and consent, on lines that no consent covers any more."""
    for shard, lines in evidence.journals.items():
        for name, number in Counter(consent_named(line.authorised_by) for line in lines).items():
            if not name:
                continue  # written by `restore`, or by a version without consents
            where = dataset.journal(shard)
            said = f"{number:,} of its lines name the consent {name}"
            if name not in consents:
                evidence.remark("journal", where, f"{said}, which is not there any more")
            elif not consents[name].names(shard):
                evidence.remark("journal", where, f"{said}, which does not name this shard")

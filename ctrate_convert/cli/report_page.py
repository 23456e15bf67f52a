"""Write the page of ``report --html``, where it belongs and over nothing but an earlier page."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from ctrate_convert.errors import DamageError, RefusedError, SettingsError
from ctrate_convert.store.durable import create_once, open_regular, replace
from ctrate_convert.store.ledger import Ledger
from ctrate_convert.store.records.damage import Damage


def require_a_place(path: Path, ledger: Ledger) -> None:
    """Refuse a path that is in the dataset or its sources, or that holds anything but a page.

    Raises:
        SettingsError: the page cannot be written there, or matplotlib is missing.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise SettingsError(
            "--html draws with matplotlib, which is not installed",
            next_command="pip install 'ctrate-convert[report]'",
        )
    place = path.absolute().parent.resolve() / path.name
    if not place.parent.is_dir():
        raise SettingsError("no such folder", where=place.parent)
    kept = [ledger.dataset.out, *(Path(plan.settings.data_folder) for plan in ledger.plans)]
    for folder in kept:
        if place.is_relative_to(folder.resolve()):
            raise SettingsError(
                "the page names people, nodes and volumes: it does not belong among the data",
                where=place,
                expected=f"a path outside {folder}",
                next_command="ctrate-convert report OUT --html ELSEWHERE/report.html",
            )
    if not _is_free(path) and not _is_a_page(path):
        raise _taken(path)


def write_page(path: Path, ledger: Ledger, damage: Sequence[Damage]) -> str:
    """Write the page durably and return its verdict.

    Raises:
        SettingsError: something else took the place meanwhile.
        RefusedError: an earlier page was replaced by something else meanwhile.
    """
    # Only now: matplotlib is large, and no other command needs it.
    from ctrate_convert.reporting.facts import gather
    from ctrate_convert.reporting.page import page

    facts = gather(ledger, damage)
    data = page(facts)
    if _is_free(path):
        if not create_once(path, data):
            raise _taken(path)
    elif _is_a_page(path):
        replace(path, data)
    else:
        raise RefusedError("the file is no page of this program any more", where=path)
    return facts.verdict


def _is_free(path: Path) -> bool:
    return not path.exists() and not path.is_symlink()


def _is_a_page(path: Path) -> bool:
    from ctrate_convert.reporting.markup import MARK

    if path.is_symlink():
        return False
    try:
        with open_regular(path) as stream:
            return stream.read(len(MARK)) == MARK
    except DamageError:
        return False


def _taken(path: Path) -> SettingsError:
    return SettingsError(
        "there is a file that is no page of this program",
        where=path,
        next_command="name another file, or move that one away",
    )

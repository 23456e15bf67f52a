"""Say in the reader's own language what a person decides by; English where there is no catalog.

A message is the English sentence, with ``{}`` for each fact in it. A sentence that was composed
elsewhere, as that of an error, is recognised by the words around its facts. So records, logs and
``--json`` hold English, and only what is printed for a person is translated.

In a translation ``{0}`` is the first fact as it is, ``{0:t}`` the fact translated too, and
``{0:n}`` the number alone of a fact such as ``8 source files``. The catalogs are
``ctrate_convert/locale/LANGUAGE/LC_MESSAGES/ctrate_convert.po``; `tools.messages` compiles them.
"""

from __future__ import annotations

import functools
import gettext
import itertools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from ctrate_convert.errors import CtrateError

DOMAIN = "ctrate_convert"
LOCALE = Path(__file__).parents[1] / "locale"

_WORD = "word"
"""The context that single words have in a catalog, so that no sentence is taken for one."""

_SAMPLE = "删除，。"
"""Text that a terminal's encoding must be able to show, or the program speaks English."""

_LONGEST = 5_000
"""Characters of a sentence that is looked for; a longer one is no message, and costs no time."""


class _Fact(str):
    """A fact in a sentence, which a translation places by ``{0}``, ``{0:t}`` or ``{0:n}``."""

    __slots__ = ()

    def __format__(self, how: str) -> str:
        if how == "t":
            return translated(str(self))
        return self.partition(" ")[0] if how == "n" else str(self)


class _Catalog(gettext.GNUTranslations):
    """A catalog that also finds the sentences that have facts in them."""

    @functools.cached_property
    def patterns(self) -> list[tuple[re.Pattern[str], str]]:
        """The sentences with facts, those with the most letters of their own first."""
        messages: dict[str, str] = vars(self)["_catalog"]
        found = [text for text in messages if "{}" in text and "\x04" not in text]
        found.sort(key=lambda text: len(text.replace("{}", "")), reverse=True)
        return [
            (re.compile("(.*?)".join(map(re.escape, text.split("{}"))), re.DOTALL), messages[text])
            for text in found
        ]

    def sentence(self, text: str) -> str:
        """Return the translation of ``text``, or ``text`` if the catalog does not know it."""
        known = self.gettext(text)
        if known != text or len(text) > _LONGEST:
            return known
        for pattern, translation in self.patterns:
            facts = pattern.fullmatch(text)
            if facts:
                return translation.format(*map(_Fact, facts.groups()))
        return text


def translated(text: str) -> str:
    """Return the sentence ``text`` in the reader's language; white space around it stays."""
    catalog, sentence = _catalog(), text.strip()
    if catalog is None or not sentence:
        return text
    before, _, after = text.partition(sentence)
    return before + catalog.sentence(sentence) + after


def word(text: str) -> str:
    """Return a single word, a title or a joint of a list, in the reader's language."""
    catalog = _catalog()
    return text if catalog is None or not text else catalog.pgettext(_WORD, text)


def amount(number: int, state: str) -> str:
    """Return how many are in ``state``, as ``1,234 failed``."""
    return word("{} {}").format(f"{number:,}", word(state))


def phrase(english: str, form: str, **facts: object) -> str:
    """Return ``english``, or the translation of ``form`` with the ``facts`` in their places.

    For phrases whose English has plurals, which the reader's language may not have.
    """
    return english if _catalog() is None else word(form).format(**facts)


def error_text(error: CtrateError) -> str:
    """Return all facts of ``error``, a line each, behind the word ``error``."""
    if _catalog() is None:
        return "error: " + "\n".join(error.lines())
    facts = [
        f"  {word(name)}{fact if name == 'where' else translated(fact)}"
        for name, fact in error.facts()
    ]
    return "\n".join([word("error: ") + translated(error.what), *facts])


def _catalog() -> _Catalog | None:
    """Return the catalog of the first language asked for that has one; None is English."""
    wanted = _languages(os.environ.get)
    return _load(wanted) if wanted and _is_shown(_SAMPLE) else None


def _languages(variable: Callable[[str], str | None]) -> tuple[str, ...]:
    """Return the languages that the environment asks for, up to the first English one.

    As gettext has it: LANGUAGE is a list and comes first, but the locale C speaks English.
    """
    locale = variable("LC_ALL") or variable("LC_MESSAGES") or variable("LANG") or ""
    if locale.partition(".")[0] in ("C", "POSIX"):
        return ()
    asked = (variable("LANGUAGE") or locale).split(":")
    return tuple(itertools.takewhile(lambda name: not name.startswith("en"), filter(None, asked)))


@functools.cache
def _load(languages: tuple[str, ...]) -> _Catalog | None:
    found = gettext.find(DOMAIN, str(LOCALE), languages)
    if found is None:
        return None
    with Path(found).open("rb") as file:
        return _Catalog(file)


def _is_shown(text: str) -> bool:
    """Return True if standard output and standard error can both encode ``text``."""
    for stream in (sys.stdout, sys.stderr):
        try:
            text.encode(stream.encoding or "utf-8")
        except UnicodeEncodeError:
            return False
    return True

"""Compile the catalogs of messages: ``python -m tools.messages``.

Each ``.po`` under ``ctrate_convert/locale`` gets a ``.mo`` beside it, which the program reads.
"""

from __future__ import annotations

import ast
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCALE = ROOT / "ctrate_convert" / "locale"

_MAGIC, _VERSION, _HEADER_BYTES, _ENTRY_BYTES = 0x950412DE, 0, 28, 8
_ENTRY = re.compile(r'^(msgctxt|msgid|msgstr) (".*"(?:\n".*")*)$', re.MULTILINE)


def catalogs() -> list[Path]:
    """Return every catalog's source."""
    return sorted(LOCALE.glob("*/LC_MESSAGES/*.po"))


def read(text: str) -> dict[str, str]:
    """Return the translation of each message of a ``.po`` file; a context stands before EOT.

    Raises:
        ValueError: a message is there twice.
    """
    messages: dict[str, str] = {}
    context = message = ""
    for field, quoted in _ENTRY.findall(text):
        value = "".join(ast.literal_eval(line) for line in quoted.split("\n"))
        if field == "msgctxt":
            context = f"{value}\x04"
        elif field == "msgid":
            message, context = context + value, ""
        elif message in messages:
            raise ValueError(f"twice in the catalog: {message!r}")
        else:
            messages[message] = value
    return messages


def compiled(messages: Mapping[str, str]) -> bytes:
    """Return the ``.mo`` file of ``messages``: sizes and places of all texts, then the texts."""
    pairs = sorted((key.encode(), value.encode()) for key, value in messages.items())
    keys_at = _HEADER_BYTES
    values_at = keys_at + _ENTRY_BYTES * len(pairs)
    place = values_at + _ENTRY_BYTES * len(pairs)
    tables, texts = b"", b""
    for text in [key for key, _ in pairs] + [value for _, value in pairs]:
        tables += struct.pack("<2I", len(text), place + len(texts))
        texts += text + b"\0"
    header = (_MAGIC, _VERSION, len(pairs), keys_at, values_at, 0, place)
    return struct.pack("<7I", *header) + tables + texts


def source_texts() -> set[str]:
    """Return every text in the package's source, with ``{}`` for what an f-string fills in.

    Blanks around it are left out, and the marks before the titles of `show.table`.
    """
    return {
        text.strip().lstrip("=>")
        for path in (ROOT / "ctrate_convert").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for text in _text(node)
    }


def _text(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(
            str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
        )


def main() -> None:
    """Compile every catalog."""
    for source in catalogs():
        messages = read(source.read_text())
        source.with_suffix(".mo").write_bytes(compiled(messages))
        print(f"{source.relative_to(ROOT)}: {len(messages) - 1} messages")


if __name__ == "__main__":
    main()

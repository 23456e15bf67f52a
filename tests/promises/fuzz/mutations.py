"""Changes to bytes, lines and JSON values that no honest program makes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def flip(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 4, 30))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data))]


def zero(chance: random.Random, data: bytes) -> bytes:
    start = chance.randrange(len(data))
    size = min(chance.randrange(1, 200), len(data) - start)
    return data[:start] + bytes(size) + data[start + size :]


def repeat(chance: random.Random, data: bytes) -> bytes:
    start, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[start:end] + data[end:]


def put_number(chance: random.Random, data: bytes) -> bytes:
    """Some field of one, two, four or eight bytes gets a value at an edge."""
    size = chance.choice((1, 2, 4, 8))
    value = chance.choice((0, 1, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), 2 ** (8 * size - 1) - 1))
    start = chance.randrange(max(1, len(data) - size))
    return data[:start] + value.to_bytes(size, "little") + data[start + size :]


def swap_lines(chance: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    one, other = (chance.randrange(len(lines)) for _ in range(2))
    lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


def repeat_line(chance: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    lines.insert(chance.randrange(len(lines)), chance.choice(lines))
    return b"".join(lines)


BYTES = (flip, cut, zero, repeat, put_number)
LINES = (flip, cut, swap_lines, repeat_line)
Mutate = Callable[[random.Random, bytes], bytes]


def nasty(chance: random.Random, outside: Path) -> Any:
    """A value that no honest program has written."""
    paths = (
        "../outside/precious.npz", str(outside / "precious.npz"), "link/precious.npz",
        "train_1/../../../outside/precious.npz", "./train_1", "a//b", "..", "/", "", "\0",
        "extra.npz", str(outside), "x" * 5000, "a\nb", "\ud800",
    )  # fmt: skip
    numbers = (0, -1, 1, 2**31, 2**63, 2**70, -(2**63), 0.5, 1e308, -0.0)
    others: tuple[Any, ...] = (None, True, [], {}, ["x"], {"a": 1})
    return chance.choice((chance.choice(paths), chance.choice(numbers), chance.choice(others)))


def leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with a key or place in it."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in entries:
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from leaves(inner)


def edit(chance: random.Random, value: Any, outside: Path) -> None:
    """Change one place in a JSON value."""
    places = list(leaves(value)) if isinstance(value, (dict, list)) else []
    if not places:
        return
    holder, key = chance.choice(places)
    how = chance.randrange(6)
    if how == 0 and isinstance(holder, dict):
        del holder[key]
    elif how == 1 and isinstance(holder, dict):
        holder[f"{key}x"] = holder[key]
    elif how == 2:
        same = [(h, k) for h, k in places if type(h[k]) is type(holder[key])]
        other, at = chance.choice(same)
        holder[key] = json.loads(json.dumps(other[at]))
    elif how == 3 and isinstance(holder[key], int):
        holder[key] += chance.choice((-1, 1, 512, -512))
    else:
        holder[key] = nasty(chance, outside)


def edited_json(chance: random.Random, data: bytes, outside: Path) -> bytes:
    """One line, or the whole, with one value changed."""
    lines = data.splitlines(keepends=True)
    place = chance.randrange(len(lines))
    try:
        value = json.loads(data)
    except ValueError:
        value = json.loads(lines[place])
        edit(chance, value, outside)
        lines[place] = json.dumps(value, separators=(",", ":")).encode() + b"\n"
        return b"".join(lines)
    edit(chance, value, outside)
    return json.dumps(value, separators=(",", ":")).encode()

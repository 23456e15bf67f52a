"""Numbers and names in words for people: the same in every report, page and table."""

from __future__ import annotations

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def size(size_bytes: float) -> str:
    """Return a size for people, as ``12.3 GiB``."""
    value = float(size_bytes)
    for unit in _UNITS[:-1]:
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.2f} {_UNITS[-1]}"


def speed(bytes_per_s: float) -> str:
    """Return a speed for people, as ``123 MB/s``; one below 10 MB/s with its first digits."""
    if bytes_per_s >= 1e7:
        return f"{bytes_per_s / 1e6:,.0f} MB/s"
    return (
        f"{bytes_per_s / 1e6:.1f} MB/s" if bytes_per_s >= 1e5 else f"{bytes_per_s / 1e3:.1f} kB/s"
    )


def unit(size_bytes: float) -> tuple[float, str]:
    """Return the unit that `size` would use, in bytes, and its name."""
    power = 0
    while abs(size_bytes) >= 1024 and power < len(_UNITS) - 1:
        size_bytes /= 1024
        power += 1
    return 1024.0**power, _UNITS[power]


def count(number: int, noun: str) -> str:
    """Return a number with its noun, as ``1 file`` or ``2,345 files``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """Return a duration as ``1:02:03``."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


def seconds(value: float) -> str:
    """Return a duration as ``12.3 s``, or as `duration` does from a minute on."""
    return f"{value:.1f} s" if value < 60 else duration(value)


def printable(text: str) -> str:
    """Escape what could pass for something else on a page; a file name may hold anything."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)

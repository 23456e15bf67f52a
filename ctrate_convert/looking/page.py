"""A page of volumes as one HTML file that holds its pictures; it asks no network."""

from __future__ import annotations

import html
from collections.abc import Sequence

from ctrate_convert.looking.look import Look
from ctrate_convert.looking.picture import data_url, picture

_STYLE = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; }
body { padding: 0 1rem; }
figure { margin: 0 0 2.5rem; border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
figure img { display: block; width: 100%; height: auto; background: #101010; }
figcaption { padding: .6rem 1rem; }
h1 { font-size: 1.4rem; }
@media print { figure { break-inside: avoid; } body { margin: 0; } }
"""


def page(looks: Sequence[Look], title: str = "Volumes") -> str:
    """Return the page."""
    figures = "\n".join(figure(look) for look in looks)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{html.escape(title)}</h1>\n{figures}\n</body></html>\n"
    )


def figure(look: Look) -> str:
    """Return the picture of one volume with its key and labels, as a part of a page."""
    known = look.known
    labels = ", ".join(known.labels)
    words = "; ".join(f"{name}: {value}" for name, value in look.facts())
    return (
        f'<figure><img src="{data_url(picture(look))}" alt="{html.escape(words, quote=True)}">'
        f"<figcaption><b>{html.escape(known.key)}</b> {html.escape(labels)}</figcaption></figure>"
    )


def table(title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with a title, as a part of a page."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f"<table><caption>{html.escape(title)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )

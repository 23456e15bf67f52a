"""Parts of a page as HTML. All text goes through `text`: a file may have any name and reason."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from string import Template

from ctrate_convert.looking.words import printable
from ctrate_convert.reporting.course import Outcome
from ctrate_convert.reporting.style import STYLE

MARK = b"<!doctype html>\n<!-- written by: ctrate-convert report --html -->\n"
"""The first bytes of every page: what begins with them may be written over."""

_LONG = 28
"""Characters from which on a table's cell may be folded."""

_PAGE = Template(
    """<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header>
$header
</header>
<nav aria-label="Sections">$links</nav>
<main>
$sections
</main>
<footer>$footer</footer>
</body>
</html>
"""
)


def text(value: object) -> str:
    """Return any text as HTML that shows it and does nothing else."""
    return html.escape(printable(str(value)), quote=True)


def paragraph(value: object, kind: str = "") -> str:
    """Return a paragraph of text."""
    return f'<p class="{kind}">{text(value)}</p>' if kind else f"<p>{text(value)}</p>"


def tiles(facts: Iterable[tuple[str, str, str]]) -> str:
    """Return facts as tiles: a name, the value in large letters, and a remark."""
    parts = (
        f"<div><dt>{text(name)}</dt><dd>{text(value)}"
        + (f"<small>{text(remark)}</small>" if remark else "")
        + "</dd></div>"
        for name, value, remark in facts
    )
    return f'<dl class="tiles">{"".join(parts)}</dl>'


def table(title: str, names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table that scrolls by itself where it is too wide; ``>name`` is right-aligned."""
    kinds = [' class="n"' if name.startswith(">") else "" for name in names]
    head = "".join(
        f'<th scope="col"{kind}>{text(name.lstrip(">"))}</th>'
        for kind, name in zip(kinds, names, strict=True)
    )
    body = "\n".join(
        "<tr>"
        + "".join(_cell(kind, str(one)) for kind, one in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table><caption>{text(title)}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _cell(kind: str, value: str) -> str:
    kind = kind or (' class="long"' if len(value) > _LONG else "")
    return f"<td{kind}>{text(value)}</td>"


def figure(svg: str, title: str, remark: str = "") -> str:
    """Return a chart with its title below."""
    return f"<figure>{svg}<figcaption><b>{text(title)}</b> {text(remark)}</figcaption></figure>"


def timeline(drawings: Mapping[str, str], title: str, remark: str = "") -> str:
    """Return a timeline, of which a screen shows the wide drawing and a phone the narrow one."""
    parts = "".join(f'<div class="{kind}">{svg}</div>' for kind, svg in drawings.items())
    return (
        f'<figure class="timeline">{parts}'
        f"<figcaption><b>{text(title)}</b> {text(remark)}</figcaption></figure>"
    )


def key(outcomes: Iterable[Outcome]) -> str:
    """Return what the colours and signs of timelines mean."""
    parts = [
        f'<li><i style="background: var(--{one.name.lower()})"></i>{text(one.value)}</li>'
        for one in outcomes
    ]
    parts.append("<li>▲ tried again after an attempt that did not end well</li>")
    parts.append("<li>✕ failed, or no end record</li>")
    return f'<ul class="key">{"".join(parts)}</ul>'


def charts(figures: Iterable[str], kind: str = "") -> str:
    """Return charts side by side, as many as there is room for; ``broad`` ones not on paper."""
    return f'<div class="{f"charts {kind}".rstrip()}">{"".join(figures)}</div>'


def quotes(texts: Iterable[str]) -> str:
    """Return texts as a list."""
    return f'<ul class="quotes">{"".join(f"<li>{text(one)}</li>" for one in texts)}</ul>'


def section(name: str, title: str, *parts: str) -> str:
    """Return a section that a link of the page leads to."""
    return f'<section id="{name}"><h2>{text(title)}</h2>\n' + "\n".join(parts) + "\n</section>"


def whole(title: str, header: str, sections: Mapping[str, tuple[str, str]], footer: str) -> bytes:
    """Return the page; ``sections`` are their titles and contents by name."""
    links = "".join(f'<a href="#{name}">{text(title)}</a>' for name, (title, _) in sections.items())
    page = _PAGE.substitute(
        title=text(title),
        style=STYLE,
        header=header,
        links=links,
        sections="\n".join(
            section(name, title, content) for name, (title, content) in sections.items()
        ),
        footer=footer,
    )
    # A picture names its shard, whose folder may have a name that is no text.
    return MARK + page.encode(errors="backslashreplace")

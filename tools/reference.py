"""Write docs/reference.md: ``python -m tools.reference``.

The commands come from click, the settings from the models' descriptions.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ctrate_convert.cluster.scheduler.profile import ClusterProfile
from ctrate_convert.store.records.plan import PlanSettings
from ctrate_convert.store.records.recipe import Recipe
from tools.commands import Command, Option, attribute_texts, exit_codes, groups

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"

_HEAD = """# Reference: commands, settings, exit codes

`python -m tools.reference` makes this page from the code; a test keeps it up to date. Options are
accepted with underscores and with hyphens. Every command also has `--help`, and `--verbose`, which
tells each step on standard error."""

_KINDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Recipe: "name of a recipe, or a TOML file",
}


def page() -> str:
    """Return the page as Markdown."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield _HEAD
    for title, commands in groups().items():
        yield f"\n## {title}"
        for command in commands:
            yield from _command(command)
    yield "\n## Settings of a plan\n"
    yield "What `plan.json` keeps as `settings`, and what a settings file for `--config` may name."
    yield "Such a file may name every other option of its commands too.\n"
    yield from _settings(PlanSettings)
    yield "\n## Settings of a cluster profile\n"
    yield "What a TOML file for `submit --profile` may name; options of the same names win over it."
    yield "`relaunch` takes them too.\n"
    yield from _settings(ClusterProfile)
    yield "\n## Exit codes\n"
    yield from _table(
        ("code", "meaning"), [(str(code), text) for code, text in exit_codes().items()]
    )
    yield ""


def _command(command: Command) -> Iterator[str]:
    yield f"\n### {command.name}\n"
    yield f"```text\n{command.usage}\n```"
    for one in command.help:
        yield f"\n```text\n{one.text}\n```" if one.is_block else f"\n{_escaped(one.text)}"
    if command.options:
        yield ""
        rows = [(f"`{one.words}`", one.text, _default(one)) for one in command.options]
        yield from _table(("option", "what it does", "default; limits"), rows)


def _default(option: Option) -> str:
    parts = (option.default, option.limits, "required" if option.required else "")
    return "; ".join(part for part in parts if part)


def _settings(model: type[BaseModel]) -> Iterator[str]:
    below = attribute_texts(model)
    rows = [
        (f"`{name}`", field.description or below[name], _kind(field), _value(field))
        for name, field in model.model_fields.items()
    ]
    yield from _table(("setting", "what it does", "type; limits", "default"), rows)


def _kind(field: FieldInfo) -> str:
    limits = [
        f"{sign} {getattr(one, word)}"
        for one in field.metadata
        for word, sign in (("ge", "≥"), ("gt", ">"))
        if hasattr(one, word)
    ]
    return "; ".join([_kind_of(field.annotation), *limits])


def _kind_of(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in parts if one)
    if origin in (Union, types.UnionType):
        return " or ".join(_kind_of(one) for one in parts if one is not type(None))
    if origin is tuple:
        return f"list: {_kind_of(parts[0])}"
    if origin is dict:
        return f"table: {_kind_of(parts[1])}"
    return _KINDS[annotation]


def _value(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ((), {}, ""):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(names)} |"
    yield "|---" * len(names) + "|"
    for row in rows:
        yield f"| {' | '.join(_escaped(cell) for cell in row)} |"


def _escaped(text: str) -> str:
    """Return ``text`` with options as code, and without what Markdown takes for table or tag."""
    pieces = text.replace("|", "\\|").split("`")
    pieces[::2] = [
        re.sub(r"(?<!\w)--\w+", r"`\g<0>`", piece).replace("<", "&lt;").replace("*", "\\*")
        for piece in pieces[::2]
    ]
    return "`".join(pieces)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())
    print(f"{PAGE.name}: {page().count(chr(10))} lines")


if __name__ == "__main__":
    main()

"""The dataset card, ``README.md``, and the lists of volumes that it tells of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ctrate_convert.errors import DamageError
from ctrate_convert.store.durable import create_once, read_regular, replace
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.plan import Plan
from ctrate_convert.store.records.recipe import as_toml
from ctrate_convert.store.records.volume_list import GenerationLists

_CARD = """---
configs:
- config_name: default
  data_files: "shard-*.tar"
---

Chest CT volumes in WebDataset shards. `manifest.json` lists the shards, their SHA-256 and totals.
"""
"""Without a card, Hugging Face's ``load_dataset(OUT)`` reads a single shard's manifest as data."""

_VIEWS = """
Each array is a view: what the recipe `{title}` makes of a volume. `json["view"]` puts it back into
the patient.

```toml
{toml}```
"""

_LISTS = """
## Lists of volumes

Each generation of the plan was made with these lists. Where it has a `keep_file`, only volumes
named on one were planned. Volumes named on an `exclude_file` were left out. `sha256sum LIST` tells
whether a list is the same.

| generation | option | list | names | SHA-256 |
|---|---|---|---|---|
"""

NOT_RECORDED = "not recorded"


def lists_of(plans: Sequence[Plan]) -> tuple[GenerationLists, ...]:
    """Return the recorded lists of every generation; a generation may have none."""
    return tuple(GenerationLists(generation=one.generation, lists=one.lists) for one in plans)


def unrecorded_lists(plans: Sequence[Plan]) -> dict[int, tuple[str, ...]]:
    """Return, by generation, the names of exclusion lists that an earlier version used.

    It recorded neither their number of names nor their hash.
    """
    return {
        plan.generation: tuple(path.rpartition("/")[2] for path in plan.settings.exclude_file)
        for plan in plans
        if plan.settings.exclude_file and not plan.lists
    }


def keep_card(dataset: Dataset, plans: Sequence[Plan]) -> None:
    """Write the card, or bring it up to date; a card that somebody else wrote stays as it is.

    Raises:
        OSError: the card cannot be written.
    """
    wanted = card_of(plans)
    try:
        seen = read_regular(dataset.card)
    except FileNotFoundError:
        create_once(dataset.card, wanted)
        return
    # A card that cannot be read may be somebody else's.
    except (DamageError, OSError):
        return
    # A worker that began before the newest plan must not put an older card in the place of a newer
    # one.
    earlier = {card_of(plans[:number]) for number in range(len(plans))}
    if seen != wanted and seen in earlier and not dataset.card.is_symlink():
        replace(dataset.card, wanted)


def card_of(plans: Sequence[Plan]) -> bytes:
    """Return the card of a dataset with these plans. Without any list, it tells of none."""
    rows = [row for plan in plans for row in _rows(plan)]
    told = any(plan.lists or plan.settings.exclude_file for plan in plans)
    return (_CARD + _views(plans) + (_LISTS + "".join(rows) if told else "")).encode()


def _views(plans: Sequence[Plan]) -> str:
    recipes = [plan.settings.view for plan in plans if plan.settings.view is not None][:1]
    return "".join(_VIEWS.format(title=one.title, toml=as_toml(one)) for one in recipes)


def _rows(plan: Plan) -> Iterator[str]:
    number = plan.generation
    for one in plan.lists:
        yield f"| {number} | {one.option} | {_code(one.name)} | {one.keys:,} | {one.sha256} |\n"
    for name in unrecorded_lists([plan]).get(number, ()):
        yield f"| {number} | exclude_file | {_code(name)} | {NOT_RECORDED} | {NOT_RECORDED} |\n"
    if not (plan.lists or plan.settings.exclude_file):
        yield f"| {number} | none | | | |\n"


def _code(name: str) -> str:
    """Return a file's name as Markdown shows it verbatim; what would end the cell becomes ``?``."""
    return "`" + "".join("?" if c in "`|" or not c.isprintable() else c for c in name) + "`"

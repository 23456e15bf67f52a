"""Make options from a settings model, the only place for name, type, limits, default and help."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]


def options_of(
    model: type[BaseModel],
    *,
    defaults: bool,
    instead: Mapping[str, Decorator[Any]] | None = None,
) -> Decorator[Any]:
    """Add an option for every field of ``model``, in the model's order.

    Without ``defaults``, an option that is not given is None, whatever the model says. ``instead``
    has the options, by field, that are made elsewhere.
    """
    own = instead or {}

    def add(function: F) -> F:
        # Each decorator puts its option before the earlier ones, so begin with the last field.
        for name, field in reversed(model.model_fields.items()):
            option = own.get(name) or _option(name, field, defaults=defaults)
            function = option(function)
        return function

    return add


def _option(name: str, field: FieldInfo, *, defaults: bool) -> Decorator[Any]:
    kind = _without_none(field.annotation)
    words: dict[str, Any] = {"help": field.description}
    if name.endswith(("_folder", "_file")):
        words["metavar"] = "PATH"
    if kind is bool:
        return click.option(f"--{name}", is_flag=True, **words)
    if get_origin(kind) is dict:
        words["metavar"] = "NAME=VALUE"
    if get_origin(kind) in (tuple, dict):
        return click.option(f"--{name}", multiple=True, **words)
    if defaults and not field.is_required() and field.default is not None:
        words |= {"default": field.default, "show_default": True}
    if kind in (int, float):
        words["metavar"] = "N"
    return click.option(f"--{name}", type=_type(kind, field), **words)


def _type(kind: Any, field: FieldInfo) -> click.ParamType[Any]:
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    least = next((one.ge for one in field.metadata if hasattr(one, "ge")), None)
    above = next((one.gt for one in field.metadata if hasattr(one, "gt")), None)
    if kind is int:
        return click.INT if least is None else click.IntRange(min=least)
    if kind is float:
        low = above if least is None else least
        return click.FloatRange(min=low, min_open=above is not None)
    return click.STRING


def _without_none(annotation: Any) -> Any:
    """Return ``T`` for ``T | None``."""
    if get_origin(annotation) in (Union, types.UnionType):
        (annotation,) = (one for one in get_args(annotation) if one is not type(None))
    return annotation

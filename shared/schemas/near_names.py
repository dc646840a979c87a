"""Finds the field that a misspelt one of a request was meant to be."""

import difflib
from collections.abc import Iterable, Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel


def near_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that ``name`` resembles, or None. Case, ``-`` and ``_`` make no difference."""
    by_form = {_form(each): each for each in known}
    found = difflib.get_close_matches(_form(name), by_form, n=1)
    return by_form[found[0]] if found else None


def fields_at(kind: Any, location: Iterable[int | str]) -> set[str]:
    """Return the names of the fields that an object at a place may have. ``location``: pydantic's of the object; it
    also names the members of unions."""
    kinds = list(_members(kind))
    for step in location:
        below = [each for kind in kinds for each in _below(kind, step)]
        kinds = below or [kind for kind in kinds if _is_named(kind, step)] or kinds
    return {field.alias or name for kind in kinds if _is_model(kind) for name, field in kind.model_fields.items()}


def _form(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _members(kind: Any) -> Iterator[Any]:
    """Yield the types that a value of an annotation may have."""
    if get_origin(kind) is Annotated:
        yield from _members(get_args(kind)[0])
    elif get_origin(kind) in {Union, UnionType}:
        for each in get_args(kind):
            yield from _members(each)
    elif kind is not NoneType:
        yield kind


def _below(kind: Any, step: int | str) -> Iterator[Any]:
    """Yield the types at a step below a type."""
    if _is_model(kind):
        for name, field in kind.model_fields.items():
            if step in {name, field.alias}:
                yield from _members(field.annotation)
    elif get_origin(kind) is list and isinstance(step, int):
        yield from _members(get_args(kind)[0])
    elif get_origin(kind) is dict and isinstance(step, str):
        yield from _members(get_args(kind)[1])


def _is_named(kind: Any, step: int | str) -> bool:
    """Return True if ``step`` is the tag of a member of a union, or its name."""
    if not _is_model(kind):
        return False
    tags = {
        value
        for field in kind.model_fields.values()
        if get_origin(field.annotation) is Literal
        for value in get_args(field.annotation)
    }
    return step == kind.__name__ or step in tags


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)

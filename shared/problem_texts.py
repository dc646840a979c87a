"""Words for pydantic's errors about settings and configuration: ``problem; remedy``, without the value, which may
be a secret."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

_NUMBERS: Final = {
    "int_parsing": "not an integer",
    "int_type": "not an integer",
    "int_from_float": "not an integer",
    "int_parsing_size": "not an integer",
    "float_parsing": "not a number",
    "float_type": "not a number",
    "finite_number": "not a finite number",
    "greater_than": "too small",
    "greater_than_equal": "too small",
    "less_than": "too large",
    "less_than_equal": "too large",
}
_OTHERS: Final = {
    "bool_parsing": "not a boolean; use true or false",
    "dict_type": "not a JSON object; use {…}",
    "model_type": "not a JSON object; use {…}",
    "list_type": "not a JSON array; use […]",
    "string_type": "not text; use quotes",
}
_BOUNDS: Final = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}


def text_of(error: ErrorDetails, field: FieldInfo | None = None) -> str:
    """Return ``problem; remedy``. ``field``: of a setting whose bounds the remedy names."""
    kind, context = error["type"], error.get("ctx", {})
    if kind in _NUMBERS:
        return f"{_NUMBERS[kind]}; {_number_remedy(kind, context, field)}"
    if kind in _OTHERS:
        return _OTHERS[kind]
    match context:
        case {"expected": str(expected)}:
            return f"unknown value; use {_without_quotes(expected)}"
        case {"min_length": length}:
            return f"too short; use at least {length} characters"
        case {"max_length": length}:
            return f"too long; use at most {length} {'characters' if kind.startswith('string') else 'entries'}"
    message = error["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _number_remedy(kind: str, context: Mapping[str, Any], field: FieldInfo | None) -> str:
    bounds = _bounds(field.metadata if field else ()) or {k: v for k, v in context.items() if k in _BOUNDS}
    is_integer = kind.startswith("int") or (field is not None and field.annotation is int)
    noun = "an integer" if is_integer else "a number"
    words = _BOUNDS if "ge" in bounds else _BOUNDS | {"le": "up to"}
    return " ".join(
        ("set", noun, *(f"{word} {_plain(bounds[name])}" for name, word in words.items() if name in bounds))
    )


def _bounds(metadata: Iterable[object]) -> dict[str, object]:
    return {name: getattr(item, name) for item in metadata for name in _BOUNDS if hasattr(item, name)}


def _plain(bound: Any) -> str:
    return str(int(bound) if bound == int(bound) else bound)


def _without_quotes(text: str) -> str:
    return text.replace("'", "")

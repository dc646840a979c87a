"""Words for pydantic's errors about a request: the demand on a value, without the value, which may be content."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic_core import ErrorDetails

_KINDS: Final[Mapping[type, str]] = {
    bool: "true or false",
    str: "a string",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
#: What the value must be, by the beginning of the error's type.
_WANTED: Final[Mapping[str, str]] = {
    "bool_": "true or false",
    "dict_": "an object",
    "float_": "a number",
    "finite_number": "a finite number",
    "int_from_float": "an integer",
    "int_": "an integer",
    "list_": "a list",
    "model_": "an object",
    "string_type": "a string",
    "string_unicode": "text in UTF-8",
    "date_": "a date such as 2026-11-30",
    "datetime_": "a time such as 2026-11-30T12:00:00Z",
}
#: Fields whose form is best shown.
_EXAMPLES: Final[Mapping[str, str]] = {"messages": '[{"role": "user", "content": "…"}]'}
_BOUNDS: Final[Mapping[str, str]] = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def problem_of(error: ErrorDetails, *, is_text: bool = False) -> str:
    """Return the fault of a value and the demand on it. ``is_text``: the value comes from a URL or a header, so
    that its type says nothing."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return "missing; add it"
    if (wanted := _wanted(kind)) is not None:
        example = _EXAMPLES.get(str(error["loc"][-1])) if error["loc"] else None
        found = None if is_text else _found(error.get("input"), wanted)
        return f"must be {wanted}{f' such as {example}' if example else ''}{f', not {found}' if found else ''}"
    return _limit(kind, context) or _other(error["msg"])


def _wanted(kind: str) -> str | None:
    return next((wanted for prefix, wanted in _WANTED.items() if kind.startswith(prefix)), None)


def _found(value: object, wanted: str) -> str | None:
    if isinstance(value, float) and wanted == "an integer":
        return "a fraction"
    found = _KINDS.get(type(value))
    return None if found == wanted else found


def _limit(kind: str, context: Mapping[str, Any]) -> str | None:
    """Return the problem of a value of the right type that is out of its limits."""
    bound = next((name for name in _BOUNDS if name in context), None)
    if bound is not None:
        return f"must be {_BOUNDS[bound]} {_plain(context[bound])}"
    found: str | None = None
    match context:
        case {"expected": str(expected)} | {"expected_tags": str(expected)}:
            found = f"must be {_one_of(expected)}"
        case {"min_length": 1}:
            found = "must not be empty"
        case {"min_length": least}:
            found = f"must have at least {least} {_unit(kind)}"
        case {"max_length": most}:
            found = f"must have at most {most} {_unit(kind)}"
        case {"pattern": pattern}:
            found = f"must match {pattern}"
    return found


def _one_of(expected: str) -> str:
    """Return the alternatives with ``or`` before the last one."""
    if " or " in expected or ", " not in expected:
        return expected.replace("True", "true").replace("False", "false")
    *others, last = expected.split(", ")
    return f"{', '.join(others)} or {last}"


def _unit(kind: str) -> str:
    return "characters" if kind.startswith("string") else "entries"


def _plain(bound: Any) -> str:
    return str(int(bound) if isinstance(bound, float) and bound.is_integer() else bound)


def _other(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]

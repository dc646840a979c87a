"""Errors of a request that does not fit its schema, in words that name the field and repeat no content."""

from collections.abc import Callable
from typing import Final

from pydantic import ValidationError

from shared.errors import InvalidJson, InvalidRequest

#: Longest field name in an error message, since a client may send any name.
_LONGEST_NAME: Final = 64


def refusal(error: ValidationError, path_of: Callable[[str], str] | None = None) -> InvalidJson | InvalidRequest:
    """Return the error that a failed validation means. ``path_of``: the client's path of a canonical one."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    if problems[0]["type"] == "json_invalid":
        return InvalidJson(f"body: {_lower(problems[0]['msg'])}; send a JSON object in UTF-8")
    described = (_describe(p["loc"], p["type"], p["msg"]) for p in problems[:5])
    return InvalidRequest("; ".join(_translated(each, path_of) for each in described))


def _translated(description: str, path_of: Callable[[str], str] | None) -> str:
    """Replace the path at the beginning of a description, if there is one, by the client's."""
    path, colon, problem = description.partition(":")
    if path_of is None or not colon or " " in path:
        return description
    return f"{path_of(path)}:{problem}"


def _describe(location: tuple[int | str, ...], kind: str, message: str) -> str:
    parts = [text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}…" for text in map(str, location)]
    field = ".".join(part for part in parts if not part.startswith("("))
    if kind == "extra_forbidden":
        return f"{field}: unknown field; remove it"
    if kind == "value_error":
        message = message.removeprefix("Value error, ")
        return f"{field}: {message}" if field else message
    return f"{field or 'body'}: {_lower(message)}"


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]

"""Errors of a request that does not fit its schema, in words that name the field and repeat no content."""

from collections.abc import Callable, Iterable
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from shared.errors import InvalidJson, InvalidRequest
from shared.schemas.field_problems import problem_of
from shared.schemas.json_problems import json_problem
from shared.schemas.near_names import fields_at, near_name

#: Longest field name in an error message, since a client may send any name.
_LONGEST_NAME: Final = 64


def refusal(
    error: ValidationError, kind: type[BaseModel] | None = None, path_of: Callable[[str], str] | None = None
) -> InvalidJson | InvalidRequest:
    """Return the error that a failed validation means. ``kind``: of the request; None for any object. ``path_of``:
    the client's path of a canonical one."""
    problems = error.errors(include_url=False)
    if problems[0]["type"] == "json_invalid":
        fields = {} if kind is None else kind.model_fields
        required = tuple(name for name, field in fields.items() if field.is_required())
        return InvalidJson(f"body: {json_problem(problems[0]['ctx']['error'], required)}")
    described = (_describe(each, kind) for each in problems[:5])
    return InvalidRequest("; ".join(_translated(each, path_of) for each in described))


def missing_field(name: str, given: Iterable[str]) -> InvalidRequest:
    """Return the error of a required field. ``given``: names that the request has, one of which may be a misspelt
    one."""
    near = near_name(name, given)
    return InvalidRequest(f"{name}: missing; {f'rename {near[:_LONGEST_NAME]}' if near else 'add it'}")


def _translated(description: str, path_of: Callable[[str], str] | None) -> str:
    """Replace the path at the beginning of a description, if there is one, by the client's."""
    path, colon, problem = description.partition(":")
    if path_of is None or not colon or " " in path:
        return description
    return f"{path_of(path)}:{problem}"


def _describe(problem: ErrorDetails, kind: Any) -> str:
    location = problem["loc"]
    parts = [text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}…" for text in map(str, location)]
    field = ".".join(part for part in parts if not part.startswith("(") and part != "[key]")
    if problem["type"] == "extra_forbidden":
        near = near_name(str(location[-1]), fields_at(kind, location[:-1]))
        return f"{field}: unknown field; {f'did you mean {near}?' if near else 'remove it'}"
    if problem["type"] == "value_error" and not field:
        return problem_of(problem)
    return f"{field or 'body'}: {problem_of(problem)}"

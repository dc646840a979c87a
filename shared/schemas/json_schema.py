"""JSON Schema: whether something is one, and where a value does not follow it.

References are resolved within the schema only: nothing is fetched. A pattern cannot hang us: the regular expressions
behind it count their steps.
"""

from collections.abc import Collection
from typing import Annotated, Any, Final

import jsonschema_rs
from pydantic import AfterValidator

_PATTERNS: Final = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000)


_DEEPEST: Final = 64
#: Some checks cost more than in proportion: a megabyte of ``enum`` takes seconds.
_MOST_VALUES: Final = 10_000


def _checked(schema: dict[str, Any]) -> dict[str, Any]:
    if _is_deeper(schema, _DEEPEST):
        raise ValueError(f"nested more than {_DEEPEST} levels deep")
    if _size(schema) > _MOST_VALUES:
        raise ValueError(f"has more than {_MOST_VALUES} values")
    try:
        _validator(schema)
    except jsonschema_rs.ValidationError as error:
        at = "".join(f"/{part}" for part in error.instance_path)
        where = f" at {at}" if at else ""
        # The library's own words would repeat what was sent.
        raise ValueError(f"not a JSON schema{where}: {_kind_of(error)}") from None
    return schema


#: A dictionary that is a JSON schema; draft 2020-12 unless ``$schema`` says otherwise.
JsonSchema = Annotated[dict[str, Any], AfterValidator(_checked)]


def violation(schema: dict[str, Any], value: object) -> str | None:
    """Where ``value`` does not follow ``schema``, as ``$.items[2].price fails "type"``: the path and the keyword,
    nothing of the value. None where it does."""
    error = next(_validator(schema).iter_errors(value), None)
    if error is None:
        return None
    return f'{json_path(error.instance_path)} fails "{_kind_of(error)}"'


def json_path(path: list[str | int]) -> str:
    """``$.items[2].price``"""
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


def _is_deeper(value: object, levels: int) -> bool:
    inner = _members(value)
    return bool(inner) and (levels == 0 or any(_is_deeper(member, levels - 1) for member in inner))


def _size(value: object) -> int:
    return 1 + sum(map(_size, _members(value)))


def _members(value: object) -> Collection[object]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _validator(schema: dict[str, Any]) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(schema, offline=True, pattern_options=_PATTERNS)


def _kind_of(error: jsonschema_rs.ValidationError) -> str:
    """The keyword that was not met."""
    return str(error.schema_path[-1]) if error.schema_path else "$ref"

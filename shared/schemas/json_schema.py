"""JSON Schema: whether something is one, and where a value does not follow it.

References are resolved within the schema only: nothing is fetched. A pattern cannot hang us: the regular expressions
behind it count their steps.
"""

from typing import Annotated, Any, Final

import jsonschema_rs
from pydantic import AfterValidator

from shared.schemas.schema_cost import MOST_VALUES, SchemaCost, depth_of

_PATTERNS: Final = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000)
_DEEPEST: Final = 64


def _checked(schema: dict[str, Any]) -> dict[str, Any]:
    if depth_of(schema) > _DEEPEST:
        raise ValueError(f"nested more than {_DEEPEST} levels deep")
    cost = SchemaCost(schema)
    if cost.size > MOST_VALUES:
        raise ValueError(f"has more than {MOST_VALUES} values, with its references written out")
    if cost.deepest_value < 1:
        raise ValueError("refers to itself in a circle, or in too many branches")
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
    if depth_of(value) > SchemaCost(schema).deepest_value:
        return "$ is nested too deeply to be held against a schema that refers to itself"
    validator = _validator(schema)
    if validator.is_valid(value):  # an error is dear to make
        return None
    error = next(validator.iter_errors(value))
    return f'{json_path(error.instance_path)} fails "{_kind_of(error)}"'


def json_path(path: list[str | int]) -> str:
    """``$.items[2].price``"""
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


def _validator(schema: dict[str, Any]) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(schema, offline=True, pattern_options=_PATTERNS)


def _kind_of(error: jsonschema_rs.ValidationError) -> str:
    """The keyword that was not met."""
    return str(error.schema_path[-1]) if error.schema_path else "$ref"

"""JSON Schema: validation of schemas, and of values against them.

References are resolved only within the schema; nothing is fetched. A pattern cannot block the process, because the
regular expression engine limits its steps.
"""

from typing import Annotated, Any, Final

import jsonschema_rs
from pydantic import AfterValidator

from shared.schemas.schema_cost import MAX_VALUES, SchemaCost, depth_of

_PATTERNS: Final = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000)
_MAX_DEPTH: Final = 64


def _checked(schema: dict[str, Any]) -> dict[str, Any]:
    if depth_of(schema) > _MAX_DEPTH:
        raise ValueError(f"nested more than {_MAX_DEPTH} levels deep; flatten it")
    cost = SchemaCost(schema)
    if cost.size > MAX_VALUES:
        raise ValueError(f"has more than {MAX_VALUES} values, with its references written out; shorten it")
    if cost.deepest_value < 1:
        raise ValueError("refers to itself in a circle, or in too many branches; remove some references")
    try:
        _validator(schema)
    except jsonschema_rs.ValidationError as error:
        at = "".join(f"/{part}" for part in error.instance_path)
        place = f" at {at}" if at else ""
        # The library's own message would repeat content.
        raise ValueError(f"not a JSON schema{place}: {_keyword_of(error)}; correct this keyword") from None
    return schema


#: A dictionary that is a valid JSON schema, by default of draft 2020-12; ``$schema`` may name another draft.
JsonSchema = Annotated[dict[str, Any], AfterValidator(_checked)]


def violation(schema: dict[str, Any], value: object) -> str | None:
    """Return the first violation of ``schema``, or None.

    It has the path and the keyword, as in ``$.items[2].price fails "type"``, and no part of the value.
    """
    if depth_of(value) > SchemaCost(schema).deepest_value:
        return "$ is nested too deeply for a schema that refers to itself"
    validator = _validator(schema)
    if validator.is_valid(value):  # creating an error is slow
        return None
    error = next(validator.iter_errors(value))
    return f'{json_path(error.instance_path)} fails "{_keyword_of(error)}"'


def json_path(path: list[str | int]) -> str:
    """Format a path such as ``$.items[2].price``."""
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


def _validator(schema: dict[str, Any]) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(schema, offline=True, pattern_options=_PATTERNS)


def _keyword_of(error: jsonschema_rs.ValidationError) -> str:
    """Return the violated keyword."""
    return str(error.schema_path[-1]) if error.schema_path else "$ref"

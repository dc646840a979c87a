"""JSON Schema: validation of schemas, and of values against them.

References are resolved only within the schema; nothing is fetched. A pattern cannot block the process, because the
regular expression engine limits its steps.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final

import jsonschema_rs
from pydantic import AfterValidator

from shared.schemas.schema_cost import MAX_VALUES, SchemaCost, depth_of

_PATTERNS: Final = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000)
_MAX_DEPTH: Final = 64
#: Longest member name and longest path in an error message, in characters.
_LONGEST_NAME: Final = 64
_LONGEST_PATH: Final = 256
#: Keywords that an error message may name. All else in a keyword's path is a name that the schema's author chose.
_KEYWORDS: Final = frozenset(
    """
    $dynamicRef $recursiveRef $ref additionalItems additionalProperties allOf anyOf const contains contentEncoding
    contentMediaType dependencies dependentRequired dependentSchemas disallow divisibleBy else enum extends format if
    exclusiveMaximum exclusiveMinimum items maxContains maxItems maxLength maxProperties maximum minContains minItems
    minLength minProperties minimum multipleOf not oneOf pattern patternProperties prefixItems properties
    propertyNames required then type unevaluatedItems unevaluatedProperties uniqueItems
    """.split()  # noqa: SIM905  a list of literals takes 50 lines
)


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


@dataclass(frozen=True, slots=True)
class Violation:
    """Violation of a schema. ``problem`` has the path, as in ``$.items[2].price fails "type"``. The path consists of
    member names, which are content. ``summary`` has no part of the value and none of the schema but the keyword."""

    problem: str
    summary: str


def violation(schema: dict[str, Any], value: object) -> Violation | None:
    """Return the first violation of ``schema``, or None."""
    if depth_of(value) > SchemaCost(schema).deepest_value:
        too_deep = "$ is nested too deeply for a schema that refers to itself"
        return Violation(too_deep, too_deep)
    validator = _validator(schema)
    if validator.is_valid(value):  # creating an error is slow
        return None
    error = next(validator.iter_errors(value))
    fails = f'fails "{_known_keyword_of(error)}"'
    return Violation(f"{json_path(error.instance_path)} {fails}", f"it {fails}")


def json_path(path: list[str | int]) -> str:
    """Format a path such as ``$.items[2].price``. Long names and long paths are cut."""
    whole = "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{_cut(part, _LONGEST_NAME)}" for part in path)
    return _cut(whole, _LONGEST_PATH)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"


def _validator(schema: dict[str, Any]) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(schema, offline=True, pattern_options=_PATTERNS)


def _keyword_of(error: jsonschema_rs.ValidationError) -> str:
    """Return the violated keyword."""
    return str(error.schema_path[-1]) if error.schema_path else "$ref"


def _known_keyword_of(error: jsonschema_rs.ValidationError) -> str:
    """Return the violated keyword, or the innermost one around a subschema ``false``, whose place is a name."""
    return next((str(part) for part in reversed(error.schema_path) if part in _KEYWORDS), "$ref")

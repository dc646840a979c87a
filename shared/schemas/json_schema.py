"""JSON Schema: validation of schemas, and of values against them.

References are resolved only within the schema; nothing is fetched. The cost of a schema and of each validation is
bounded before the work: the validator is native code, which nothing can interrupt, and whose stack is limited.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final

import jsonschema_rs
from pydantic import AfterValidator, ValidationInfo

from shared.schemas.json_bounds import check_values
from shared.schemas.pattern_cost import MAX_COMPILED_BYTES
from shared.schemas.request_budget import RequestBudget
from shared.schemas.schema_cost import SchemaCost
from shared.schemas.schema_graph import count_values
from shared.schemas.value_cost import ValueCost

_DIALECTS: Final = frozenset(
    {
        *("https://json-schema.org/draft/2020-12/schema", "https://json-schema.org/draft/2019-09/schema"),
        *(f"http://json-schema.org/draft-0{n}/schema{end}" for n in (4, 6, 7) for end in ("", "#")),
    }
)
_MAX_BACKTRACKS: Final = 100_000
#: A schema with alternatives describes each error in each of them; above so many only the value as a whole is named.
_MAX_ERRORS: Final = 20_000
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


def _checked(schema: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    budget = RequestBudget.of(info)
    if budget.checks_schemas:
        budget.checks_schemas = False
        SchemaCost(schema, budget)
        check_values(schema)
        _compile(schema)
        budget.checks_schemas = True
    return schema


def _compile(schema: dict[str, Any]) -> None:
    try:
        _validator(schema)
    except jsonschema_rs.ValidationError as error:
        raise _not_a_schema(error) from None


def _not_a_schema(error: jsonschema_rs.ValidationError) -> ValueError:
    """Build the error. The library's own message would repeat content."""
    at = _cut("".join(f"/{part}" for part in error.instance_path), _LONGEST_PATH)
    return ValueError(f"not a JSON schema{f' at {at}' if at else ''}: {_keyword_of(error)}; correct this keyword")


def _checked_form(schema: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    budget = RequestBudget.of(info)
    if budget.checks_schemas:
        budget.checks_schemas = False
        count_values(schema, budget)
        check_values(schema)
        _check_form(schema)
        budget.checks_schemas = True
    return schema


def _check_form(schema: dict[str, Any]) -> None:
    """Check the keywords. Nothing is compiled, no reference is followed, and an unknown dialect is not fetched."""
    dialect = schema.get("$schema")
    if not isinstance(dialect, str) or dialect not in _DIALECTS:
        schema = {name: value for name, value in schema.items() if name != "$schema"}
    try:
        jsonschema_rs.meta.validate(schema)
    except jsonschema_rs.ValidationError as error:
        raise _not_a_schema(error) from None


#: A dictionary in the form of a JSON schema. Values are never validated against it here, but by others.
ForeignSchema = Annotated[dict[str, Any], AfterValidator(_checked_form)]
#: A dictionary that is a valid JSON schema, by default of draft 2020-12; ``$schema`` may name another draft.
JsonSchema = Annotated[dict[str, Any], AfterValidator(_checked)]


@dataclass(frozen=True, slots=True)
class Violation:
    """Violation of a schema. ``problem`` has the path, as in ``$.items[2].price fails "type"``. The path consists of
    member names, which are content. ``summary`` has no part of the value and none of the schema but the keyword."""

    problem: str
    summary: str


def violation(schema: dict[str, Any], value: object) -> Violation | None:
    """Return the first violation of ``schema``, or None. A value that is too expensive to check is a violation."""
    try:
        cost = ValueCost(value, SchemaCost(schema, RequestBudget()))
    except ValueError:
        return _of_whole("cannot be checked, because its schema is too expensive")
    if cost.is_too_deep:
        return _of_whole("is nested too deeply for a schema that refers to itself")
    if cost.is_too_large:
        return _of_whole("is too large to be checked against this schema")
    validator = _validator(schema, min(_MAX_BACKTRACKS, cost.backtracks_for_each_match))
    if validator.is_valid(value):  # creating an error is slow
        return None
    if cost.errors > _MAX_ERRORS or cost.errors_are_too_large:
        return _of_whole("does not match, and is too large to find the place")
    return _first_violation(validator, value)


def _first_violation(validator: jsonschema_rs.Validator, value: object) -> Violation:
    """Return the first violation. ``iter_errors`` would make all errors first, which may take gigabytes."""
    try:
        validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        fails = f'fails "{_known_keyword_of(error)}"'
        return Violation(f"{json_path(error.instance_path)} {fails}", f"it {fails}")
    return _of_whole("does not match")


def _of_whole(problem: str) -> Violation:
    return Violation(f"$ {problem}", f"it {problem}")


def json_path(path: list[str | int]) -> str:
    """Format a path such as ``$.items[2].price``. Long names and long paths are cut."""
    whole = "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{_cut(part, _LONGEST_NAME)}" for part in path)
    return _cut(whole, _LONGEST_PATH)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"


def _validator(schema: dict[str, Any], backtracks: int = _MAX_BACKTRACKS) -> jsonschema_rs.Validator:
    patterns = jsonschema_rs.FancyRegexOptions(backtrack_limit=backtracks, size_limit=MAX_COMPILED_BYTES)
    # Without formats and messages: both take time, the format "regex" compiles parts of the answer.
    return jsonschema_rs.validator_for(
        schema, offline=True, pattern_options=patterns, validate_formats=False, mask="the value"
    )


def _keyword_of(error: jsonschema_rs.ValidationError) -> str:
    """Return the violated keyword."""
    return str(error.schema_path[-1]) if error.schema_path else "$ref"


def _known_keyword_of(error: jsonschema_rs.ValidationError) -> str:
    """Return the violated keyword, or the innermost one around a subschema ``false``, whose place is a name."""
    return next((str(part) for part in reversed(error.schema_path) if part in _KEYWORDS), "$ref")

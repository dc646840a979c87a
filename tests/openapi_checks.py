"""Additional checks of ``schemathesis``, which loads this module by name; see schemathesis.toml."""

import hashlib
from typing import Any

import schemathesis

from gateway.api.openapi_route import as_3_2

_KEY = "Idempotency-Key"
#: Reasons to refuse a request that fits the schema; no schema can express them.
_BEYOND_SCHEMAS = (
    "no tool call before it has this id",
    "an earlier call of this message has this id",
    "an earlier tool has this name",
    "no tool has this name",
    "not the text of a JSON object",
    "not a JSON schema",
    "fallbacks.",
    "webhook_url: ",
    "set unsupported_fields to drop",
    "needs either file_data or file_url",
    "values; shorten them",
    "do not begin with the conversation of this chat",
    "has only system messages",
    "searches need an archive",
)
#: Statuses of such refusals, by path where it is not 422, and their reasons. A page of models begins at the id of a
#: listed model.
_STATUS = {"/v1/models": 400, "/v1/usage": 400}
_MODELS = ("after_id: no such model", "before_id: no such model")
_DAYS = ("from: more than 366 days before to", "from: later than to", "by: unknown or repeated name")
_REASONS = {"/v1/models": _MODELS, "/v1/usage": _DAYS}


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """Convert the description to OpenAPI 3.2, as docs/protocol.md says: its checks need ``itemSchema``."""
    raw_schema.update(as_3_2(raw_schema))


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    """Derive a valid idempotency key from its body. Otherwise the same key often comes with other bodies, and the
    only response is 409."""
    if 1 <= len(case.headers.get(_KEY, "")) <= 255:
        case.headers[_KEY] = hashlib.sha256(repr(case.body).encode()).hexdigest()


@schemathesis.check
def error_code_conformance(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """An error has one of the codes that the description lists for this route and status. ``status_code_conformance``
    handles statuses that it does not list."""
    described = case.operation.responses.find_by_status_code(response.status_code)
    if described is None or response.status_code < 400:
        return
    codes = described.definition["content"]["application/json"]["examples"]
    code = response.json()["error"]["code"]
    assert code in codes, f"{response.status_code} {code}; described are {', '.join(codes)}"


@schemathesis.check
def only_what_schemas_cannot_say(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """Check the message: ``positive_data_acceptance`` checks the status alone and has to allow it."""
    path = case.operation.path
    is_refused = response.status_code == _STATUS.get(path, 422)
    if is_refused and case.meta is not None and case.meta.generation.mode.is_positive:
        message = response.json()["error"]["message"]
        assert any(words in message for words in _REASONS.get(path, _BEYOND_SCHEMAS)), message


@schemathesis.check
def no_internal_error(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """No stream ends with an internal error, whatever the request."""
    assert b'"internal_error"' not in response.content

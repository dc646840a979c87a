"""The OpenAPI description at ``/openapi.json``: the parts that routes share, and how it is assembled.

A route names its own statuses. The schemas come from the types that requests are parsed with and responses are made
of; those of other dialects are in dialect_schemas.py. The version is 3.1, because most generators of clients support
no later one. Only 3.2 can describe the events of a stream (``itemSchema``), so they are in an extension of the same
meaning, :data:`ITEM_SCHEMA`; openapi_route.py converts it.
"""

from collections.abc import Mapping
from typing import Any, Final, cast

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, TypeAdapter

from gateway.api import error_catalog, examples
from gateway.api.dialect_schemas import SCHEMAS as DIALECT_SCHEMAS
from gateway.api.error_catalog import Responses
from gateway.api.event_schemas import event_schemas
from gateway.api.response_models import Cost, ErrorBody, PartialUsage, TargetUsage, Usage
from gateway.auth.acting import USER_HEADER
from gateway.auth.authenticator import COOKIE
from shared.principal_ids import LONGEST_USER, USER_PATTERN

VERSION: Final = "3.1.0"
#: OpenAPI 3.2 has the same member without the prefix.
ITEM_SCHEMA: Final = "x-itemSchema"

_REFERENCE: Final = "#/components/schemas/{model}"
_ABOUT: Final = """\
A resumable streaming gateway for LLM chat. An answer belongs to a stream, not to a connection: any number of clients
can read it, from any point, as often as they like, until its retention ends.

`POST /chat/stream` responds with the stream itself; `POST /chat` responds with its URLs, for an `EventSource`. To
resume after a lost connection, send the last `id` as `Last-Event-ID` to `GET /chat/stream/{stream_id}`: no event is
lost or repeated. A repeated `POST` with the same `Idempotency-Key` attaches to the same answer.

With a `chat_id`, `messages` are only the new ones: the earlier turns are added. `GET /chats/{chat_id}` returns them.

Every HTTP error of the native routes has the same body, `ErrorBody`. The routes for other clients (`/v1/…`) answer in
the format of these clients. In addition to the errors listed with each route there are 400 `bad_request` and 431
`headers_too_large`, for invalid HTTP/1.1 and for headers that are too large, and 405 `method_not_allowed`. A server
without authentication answers 403 `not_local` or `origin_refused` on any path."""

_EVENTS: Final = """\
The events of the stream: first those that exist already, then new ones as they are generated. `start` names
provider and model; with `"reset": true`, discard all text shown so far. Then follow `token` and, if requested,
`reasoning`, `tool_call` and `json`; `refusal` is the text of a model that declines to answer. `error` comes before
`done` if the stream failed. `done` is always last: a connection that ends without it was interrupted and should be
resumed.

Each `id` is a cursor. `queued`, `waiting` (the state of a stream that sends nothing), and an `error` or `done` of the
gateway itself have none. A line `: ping` is a heartbeat."""

_BODY: Final = "Server-sent events. Each has the form of `Frame`: `x-itemSchema` is the `itemSchema` of OpenAPI 3.2."
_HEADERS: Final = {"X-Stream-Id": "the stream's id", "Location": "URL of the stream"}
_TICKET: Final = "from the `stream_url` of `POST /chat` or from `POST /chat/{stream_id}/tickets`; reads one stream"
_SECURITY: Final[dict[str, Any]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "an API key, or a JWT"},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
    "cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "for browsers; only from pages of our own or an allowed origin",
    },
    "ticket": {"type": "apiKey", "in": "query", "name": "ticket", "description": _TICKET},
}
_USER: Final[dict[str, Any]] = {
    "name": USER_HEADER,
    "in": "header",
    "description": "The user for whom the caller acts: the owner of what is made and read. Requires the scope "
    "`act_for`; not accepted with the cookie.",
    "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_USER, "pattern": USER_PATTERN},
}
#: Error codes of a route that imply its security schemes.
_SCHEMES_BY_CODE: Final = {"unauthenticated": ("bearer", "api_key", "cookie"), "invalid_ticket": ("ticket",)}


def described_headers(*names: str, always: bool = True) -> dict[str, Any]:
    return {name: {"description": _HEADERS[name], "required": always, "schema": {"type": "string"}} for name in names}


def event_stream(headers: dict[str, Any]) -> Responses:
    """Describe a 200 response with the stream."""
    frames = {
        "schema": {"type": "string", "description": _BODY},
        ITEM_SCHEMA: _reference("Frame"),
        "examples": {"answer": {"value": examples.EVENTS}},
    }
    return {200: {"description": _EVENTS, "headers": headers, "content": {"text/event-stream": frames}}}


def answer_example(name: str) -> dict[str, Any]:
    """Return ``content`` of a response with one of :data:`examples.ANSWERS`."""
    return {"application/json": {"examples": {name: {"$ref": f"#/components/examples/{name}"}}}}


def body_of(kind: type[BaseModel], bodies: Mapping[str, object]) -> dict[str, Any]:
    """Return ``openapi_extra=`` of a route that parses its body itself."""
    content = {
        "schema": _reference(kind.__name__),
        "examples": {name: {"value": value} for name, value in bodies.items()},
    }
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def install(app: FastAPI, *bodies: type[BaseModel], is_open: bool) -> None:
    """Install the description. ``bodies``: the models used with :func:`body_of`. ``is_open``: True if authentication
    is disabled."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title,
                version=app.version,
                openapi_version=VERSION,
                description=_ABOUT,
                routes=app.routes,
                tags=app.openapi_tags,
                servers=[{"url": "/", "description": "this server"}],
            )
            app.openapi_schema = _completed(made, bodies, is_open=is_open)
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]  # as FastAPI's documentation recommends


def _completed(made: dict[str, Any], bodies: tuple[type[BaseModel], ...], *, is_open: bool) -> dict[str, Any]:
    for path in made["paths"].values():
        for operation in path.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]  # added by the framework to every route with a parameter
            if not operation["responses"].get("200", {}).get("content", {"": None}):
                del operation["responses"]["200"]["content"]
            operation["security"] = _security(operation["responses"], is_open=is_open)
            for parameter in operation.get("parameters", ()):
                parameter["schema"] = _without_null(parameter["schema"])
            if {"bearer": []} in operation["security"]:
                operation.setdefault("parameters", []).append({"$ref": "#/components/parameters/user"})
    schemas = made["components"]["schemas"] | _schemas(bodies)
    made["components"] = {
        "schemas": {name: schemas[name] for name in sorted(schemas) if not name.endswith("ValidationError")},
        "examples": error_catalog.examples() | examples.ANSWERS,
        "parameters": {} if is_open else {"user": _USER},
        "securitySchemes": _SECURITY,
    }
    return made


def _security(responses: dict[str, Any], *, is_open: bool) -> list[dict[str, list[str]]]:
    """Return alternatives, any one of which suffices; an empty one means no credentials."""
    codes = [code for response in responses.values() for code in _codes(response)]
    schemes = [name for code, names in _SCHEMES_BY_CODE.items() if code in codes for name in names]
    if is_open:
        return [{}] + [{name: []} for name in schemes if name == "ticket"]
    return [{name: []} for name in schemes]


def _codes(response: dict[str, Any]) -> list[str]:
    return list(response.get("content", {}).get("application/json", {}).get("examples", ()))


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Remove the null type: a parameter can be left out, but null cannot be sent."""
    first, *others = schema.get("anyOf", ({},))
    if others != [{"type": "null"}]:
        return schema
    return {**first, **{name: value for name, value in schema.items() if name != "anyOf"}}


def _schemas(bodies: tuple[type[BaseModel], ...]) -> dict[str, Any]:
    """Return the schemas that FastAPI cannot see, because the handlers parse and render them themselves."""
    kinds: list[Any] = [
        (kind, "validation", TypeAdapter(kind))
        for kind in (*bodies, ErrorBody, Usage, PartialUsage, TargetUsage, Cost)
    ]
    _, made = TypeAdapter.json_schemas(kinds, ref_template=_REFERENCE)
    for schema in made["$defs"].values():
        _drop_null_defaults(schema)
    made["$defs"] |= DIALECT_SCHEMAS
    made["$defs"] |= event_schemas()
    return cast(dict[str, Any], made["$defs"])


def _drop_null_defaults(schema: dict[str, Any]) -> None:
    """Leave out the default of an absent member if it is null: generators make a member with a default required."""
    for member in schema.get("properties", {}).values():
        if "default" in member and member["default"] is None:
            del member["default"]


def _reference(name: str) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=name)}

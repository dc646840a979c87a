"""The OpenAPI description at ``/openapi.json``: the parts that routes share, and how it is assembled.

A route names its own statuses. The schemas come from the types that requests are parsed with and responses are made
of; those of other dialects are in dialect_schemas.py. The version is 3.1, because most generators of clients support
no later one. Only 3.2 can describe the events of a stream (``itemSchema``), so they are in an extension of the same
meaning, :data:`ITEM_SCHEMA`; :func:`as_3_2` converts it.
"""

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, TypeAdapter

from gateway.api import error_catalog
from gateway.api.dialect_schemas import SCHEMAS as DIALECT_SCHEMAS
from gateway.api.error_catalog import Responses
from gateway.api.response_models import Cost, ErrorBody, PartialUsage, TargetUsage, Usage
from gateway.auth.acting import USER_HEADER
from gateway.auth.authenticator import COOKIE
from shared.principal_ids import LONGEST_USER, USER_PATTERN
from shared.protocol import events

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

Each `id` is a cursor. `queued`, and an `error` or `done` from the gateway itself, have none. A line `: ping` is a
heartbeat."""

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
    frames = {"schema": {"type": "string", "description": _BODY}, ITEM_SCHEMA: _reference("Frame")}
    return {200: {"description": _EVENTS, "headers": headers, "content": {"text/event-stream": frames}}}


def body_of(kind: type[BaseModel], examples: Mapping[str, object]) -> dict[str, Any]:
    """Return ``openapi_extra=`` of a route that parses its body itself."""
    content = {
        "schema": _reference(kind.__name__),
        "examples": {name: {"value": value} for name, value in examples.items()},
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


def as_3_2(described: dict[str, Any]) -> dict[str, Any]:
    """Return a description as OpenAPI 3.2, in which the events of a stream have a schema."""
    made = {**described, "openapi": "3.2.0", "paths": {}}
    for path, operations in described["paths"].items():
        made["paths"][path] = {
            method: {**operation, "responses": {s: _response_3_2(r) for s, r in operation["responses"].items()}}
            for method, operation in operations.items()
        }
    return made


def _response_3_2(response: dict[str, Any]) -> dict[str, Any]:
    stream = response.get("content", {}).get("text/event-stream", {})
    if ITEM_SCHEMA not in stream:
        return response
    return {
        **response,
        "content": {**response["content"], "text/event-stream": {"itemSchema": stream[ITEM_SCHEMA]}},
    }


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
        "examples": error_catalog.examples(),
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
    frames = [_frame("queued", {"type": "object", "properties": {"stream_id": {"type": "string"}}})]
    for kind in events.TYPES:
        name = f"{kind.__name__}Event"
        made["$defs"][name] = _event(kind)
        frames.append(_frame(kind.TYPE.decode(), _reference(name)))
    made["$defs"]["Frame"] = {"title": "Frame", "description": "One server-sent event.", "oneOf": frames}
    return cast(dict[str, Any], made["$defs"])


def _drop_null_defaults(schema: dict[str, Any]) -> None:
    """Leave out what an absent member means if that is null: generators make a member with a default required."""
    for member in schema.get("properties", {}).values():
        if "default" in member and member["default"] is None:
            del member["default"]


def _event(kind: type[events.Event]) -> dict[str, Any]:
    """Return the schema of an event's ``data``; every member without the default UNSET is required."""
    _, components = msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")
    fields = msgspec.structs.fields(kind)
    always = [field.encode_name for field in fields if field.default is not msgspec.UNSET]
    return {**components[kind.__name__], "title": f"{kind.__name__}Event", "required": always}


def _frame(event: str, data: dict[str, Any]) -> dict[str, Any]:
    properties = {
        "event": {"const": event},
        "id": {
            "type": "string",
            "pattern": "^[0-9]{1,15}-[0-9]{1,15}$",
            "description": "the cursor after this event",
        },
        "retry": {"type": "integer", "description": "milliseconds; in the first event of a connection"},
        "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": data},
    }
    # A title is the name of a class in generated clients. An event and a request share the name `tool_call`.
    title = f"{event.title().replace('_', '')}Frame"
    return {"title": title, "type": "object", "required": ["event", "data"], "properties": properties}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=name)}

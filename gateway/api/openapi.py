"""The OpenAPI description at ``/openapi.json``: what routes have in common, and how the whole is put together.

A route names its own statuses; the shapes come from the types that requests are parsed with and answers are made of.
Version 3.2 is the first that can say what the events of a stream are (``itemSchema``).
"""

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, TypeAdapter

from gateway.api import error_catalog as problems
from gateway.api.error_catalog import Responses
from gateway.api.response_models import ErrorBody, Usage
from gateway.auth.authenticator import COOKIE
from shared.protocol import events

VERSION: Final = "3.2.0"

_REFERENCE: Final = "#/components/schemas/{model}"
_ABOUT: Final = """\
A resumable streaming gateway for LLM chat. An answer belongs to a stream, not to a connection: any number of clients
can read it, from any point, as often as they like, until its retention ends.

`POST /chat/stream` answers with the stream itself; `POST /chat` says where it is, for an `EventSource`. A connection
that broke goes on at `GET /chat/stream/{stream_id}` with the last `id` that was seen as `Last-Event-ID`: no event is
missed, none comes twice. An `Idempotency-Key` makes a repeated `POST` attach to the same answer.

Every error over HTTP has one body, `ErrorBody`. Beside those named with each route there are 400 `bad_request` and
431 `headers_too_large`, for what is no plain HTTP/1.1 or has too large a head, and 405 `method_not_allowed`."""

_EVENTS: Final = """\
The events of the stream: what there is at once, the rest as it comes. `start` says who answers; with `"reset": true`,
what was shown so far is to be thrown away. Then `token`, and where they were asked for `reasoning`, `tool_call` and
`json`; `refusal` is what a model says in place of an answer that it will not give. `error` comes before `done` on
failure, and `done` is always last: a connection that ends without it has broken, and is to be resumed.

Each `id` is a cursor. `queued`, and an `error` or `done` that the gateway says for itself, have none. A line `: ping`
is a heartbeat."""

_HEADERS: Final = {"X-Stream-Id": "the stream's id", "Location": "where to read the stream"}
_TICKET: Final = "from the `stream_url` of `POST /chat` or from `POST /chat/{stream_id}/tickets`; reads one stream"
_SECURITY: Final[dict[str, Any]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "an API key, or a JWT"},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
    "cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "for browsers; what changes something must come from the own origin or an allowed one",
    },
    "ticket": {"type": "apiKey", "in": "query", "name": "ticket", "description": _TICKET},
}
#: The errors that tell what a route asks its caller for.
_ASKS_FOR: Final = {"unauthenticated": ("bearer", "api_key", "cookie"), "invalid_ticket": ("ticket",)}


def described_headers(*names: str, always: bool = True) -> dict[str, Any]:
    return {name: {"description": _HEADERS[name], "required": always, "schema": {"type": "string"}} for name in names}


def event_stream(headers: dict[str, Any]) -> Responses:
    """200 and the stream."""
    frames = {"itemSchema": _reference("Frame")}
    return {200: {"description": _EVENTS, "headers": headers, "content": {"text/event-stream": frames}}}


def body_of(kind: type[BaseModel], examples: Mapping[str, object]) -> dict[str, Any]:
    """For ``openapi_extra=`` of a route that parses its body itself."""
    content = {
        "schema": _reference(kind.__name__),
        "examples": {name: {"value": value} for name, value in examples.items()},
    }
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def install(app: FastAPI, *bodies: type[BaseModel], is_open: bool) -> None:
    """``bodies``: what :func:`body_of` was asked for. ``is_open``: whether callers may come without credentials."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title,
                version=app.version,
                openapi_version=VERSION,
                description=_ABOUT,
                routes=app.routes,
            )
            app.openapi_schema = _completed(made, bodies, is_open=is_open)
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]  # as its documentation has it


def _completed(made: dict[str, Any], bodies: tuple[type[BaseModel], ...], *, is_open: bool) -> dict[str, Any]:
    for path in made["paths"].values():
        for operation in path.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]  # the framework's, where a route has any parameter
            operation["security"] = _security(operation["responses"], is_open=is_open)
            for parameter in operation.get("parameters", ()):
                parameter["schema"] = _without_null(parameter["schema"])
    schemas = made["components"]["schemas"] | _schemas(bodies)
    made["components"] = {
        "schemas": {name: schemas[name] for name in sorted(schemas) if not name.endswith("ValidationError")},
        "examples": problems.examples(),
        "securitySchemes": _SECURITY,
    }
    return made


def _security(responses: dict[str, Any], *, is_open: bool) -> list[dict[str, list[str]]]:
    """Any one of them is enough; an empty one stands for none at all."""
    codes = [code for answer in responses.values() for code in _codes(answer)]
    asked = [name for code, names in _ASKS_FOR.items() if code in codes for name in names]
    if is_open:
        return [{}] + [{name: []} for name in asked if name == "ticket"]
    return [{name: []} for name in asked]


def _codes(answer: dict[str, Any]) -> list[str]:
    return list(answer.get("content", {}).get("application/json", {}).get("examples", ()))


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter can be left out; null cannot be sent."""
    first, *others = schema.get("anyOf", ({},))
    if others != [{"type": "null"}]:
        return schema
    return {**first, **{name: value for name, value in schema.items() if name != "anyOf"}}


def _schemas(bodies: tuple[type[BaseModel], ...]) -> dict[str, Any]:
    """What FastAPI does not see, since the handlers parse and render it themselves."""
    kinds: list[Any] = [(kind, "validation", TypeAdapter(kind)) for kind in (*bodies, ErrorBody, Usage)]
    _, made = TypeAdapter.json_schemas(kinds, ref_template=_REFERENCE)
    frames = [_frame("queued", {"type": "object", "properties": {"stream_id": {"type": "string"}}})]
    for kind in events.TYPES:
        name = f"{kind.__name__}Event"
        made["$defs"][name] = _event(kind)
        frames.append(_frame(kind.TYPE.decode(), _reference(name)))
    made["$defs"]["Frame"] = {"title": "Frame", "description": "One server-sent event.", "oneOf": frames}
    return cast(dict[str, Any], made["$defs"])


def _event(kind: type[events.Event]) -> dict[str, Any]:
    """The schema of an event's ``data``, which has every member that is not left unset."""
    _, components = msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")
    fields = msgspec.structs.fields(kind)
    always = [field.encode_name for field in fields if field.default is not msgspec.UNSET]
    return {**components[kind.__name__], "title": f"{kind.__name__}Event", "required": always}


def _frame(event: str, data: dict[str, Any]) -> dict[str, Any]:
    properties = {
        "event": {"const": event},
        "id": {"type": "string", "pattern": "^[0-9]{1,15}-[0-9]{1,15}$", "description": "the cursor behind it"},
        "retry": {"type": "integer", "description": "milliseconds; in the first event of a connection"},
        "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": data},
    }
    return {"title": event, "type": "object", "required": ["event", "data"], "properties": properties}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=name)}

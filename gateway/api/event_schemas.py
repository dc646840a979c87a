"""Schemas of the events of a stream, generated from the types that are sent; for the API's description."""

from typing import Any, Final

import msgspec

from shared.protocol import events

_PLACE: Final[dict[str, Any]] = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
_QUEUED: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"stream_id": {"type": "string"}, "position": _PLACE},
}
_WAITING: Final[dict[str, Any]] = {
    "type": "object",
    "description": "Why nothing comes. `queued`: no worker has taken it; `position` counts from 1, `workers` is how"
    " many live. `taken`: a worker has it. `model`: the provider was called. `worker_lost`: its worker"
    " is gone, and it waits for another one. Each holds until the next frame but heartbeats.",
    "required": ["state"],
    "properties": {
        "state": {"type": "string", "enum": ["queued", "taken", "model", "worker_lost"]},
        "position": _PLACE,
        "workers": _PLACE,
    },
}


def event_schemas() -> dict[str, Any]:
    """Return a schema for each event's ``data``, and ``Frame``: one server-sent event of any kind."""
    made: dict[str, Any] = {}
    frames = [_frame("queued", _QUEUED), _frame("waiting", _WAITING)]
    for kind in events.TYPES:
        name = f"{kind.__name__}Event"
        made[name] = _event(kind)
        frames.append(_frame(kind.TYPE.decode(), {"$ref": f"#/components/schemas/{name}"}))
    return {**made, "Frame": {"title": "Frame", "description": "One server-sent event.", "oneOf": frames}}


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

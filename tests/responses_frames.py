"""Frames of Responses, written by hand."""

import json
from typing import Any

Body = dict[str, Any]


def event(kind: str, *, prefix: str = "response.", **members: Any) -> Body:
    """Return an event. ``prefix``: of its type."""
    return {"type": f"{prefix}{kind}", **members}


def frames(*events: Body) -> bytes:
    """Return the bytes of a stream."""
    numbered = [made | {"sequence_number": at} for at, made in enumerate(events)]
    return b"".join(f"event: {made['type']}\ndata: {json.dumps(made)}\n\n".encode() for made in numbered)


def response(**members: Any) -> Body:
    """Return a response object, still without its output."""
    return {"id": "resp_1", "object": "response", "created_at": 1, "status": "in_progress", "output": [], **members}


def ended(*output: Body, **members: Any) -> Body:
    """Return the event of a complete answer."""
    return event("completed", response=response(status="completed", output=list(output), **members))


def message(text: str, *, annotations: list[Body] | None = None, **members: Any) -> Body:
    """Return the item of a message."""
    part = {"type": "output_text", "text": text, "annotations": annotations or [], "logprobs": []}
    return {
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "assistant",
        "content": [part],
        **members,
    }

"""Route ``/openapi.json``: the description as OpenAPI 3.1, or 3.2 on request."""

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response

from gateway.api.openapi import ITEM_SCHEMA

router = APIRouter()


@router.get("/openapi.json", include_in_schema=False)
async def openapi_json(request: Request, version: Annotated[Literal["3.1", "3.2"], Query()] = "3.1") -> Response:
    described: dict[str, Any] = request.app.openapi()
    made = described if version == "3.1" else as_3_2(described)
    return Response(msgspec.json.encode(made), media_type="application/json")


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

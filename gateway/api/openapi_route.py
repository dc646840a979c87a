"""Route ``/openapi.json``: the description as OpenAPI 3.1, or 3.2 on request."""

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response

from gateway.api.openapi import as_3_2

router = APIRouter()


@router.get("/openapi.json", include_in_schema=False)
async def openapi_json(request: Request, version: Annotated[Literal["3.1", "3.2"], Query()] = "3.1") -> Response:
    described: dict[str, Any] = request.app.openapi()
    made = described if version == "3.1" else as_3_2(described)
    return Response(msgspec.json.encode(made), media_type="application/json")

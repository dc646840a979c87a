"""Routes ``/v1/models``. One body serves OpenAI's and Anthropic's clients: each finds the members that it reads."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query

from gateway.api.descriptions import MODELS, either_answers
from gateway.api.error_catalog import CALLER, error_responses
from gateway.api.response_models import ModelCard, ModelList
from gateway.intake.models import ListedModel
from gateway.state import Caller, Gateway
from shared.errors import InvalidRequest

router = APIRouter(tags=[MODELS])

ModelId = Annotated[str | None, Query(max_length=256, description="A model's `id`.")]


#: In both dialects, an invalid parameter is a 400.
_RESPONSES = {
    400 if status == InvalidRequest.http_status else status: response
    for status, response in error_responses(*CALLER, "invalid_request", "no_models").items()
}


@router.get("/v1/models", operation_id="list_models", summary="List the models", responses=_RESPONSES)
async def models(
    gateway: Gateway,
    caller: Caller,
    limit: Annotated[int | None, Query(ge=1, le=1000)] = None,
    after_id: ModelId = None,
    before_id: ModelId = None,
) -> ModelList:
    """List the available models that the credentials allow: all of them, or at most ``limit``, after one,
    before one or between two.
    ``provider/*`` means any name, for a provider without a list."""
    cards = [_card(model) for model in await gateway.models.listed(caller.models)]
    first = 0 if after_id is None else _position(cards, "after_id", after_id) + 1
    last = len(cards) if before_id is None else _position(cards, "before_id", before_id)
    page = cards[first:last]
    found = len(page)
    if limit is not None:
        page = page[:limit] if before_id is None else page[-limit:]
    ends = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return {
        "object": "list",
        "data": page,
        "has_more": len(page) < found,
        "first_id": ends[0],
        "last_id": ends[1],
    }


@router.get("/v1/models/{name:path}", operation_id="get_model", summary="Get a model", responses=either_answers())
async def model(gateway: Gateway, caller: Caller, name: str) -> ModelCard:
    """Return the model of this name; 404 if it is not listed, or the credentials do not allow it."""
    if not name:
        raise HTTPException(404)
    return _card(await gateway.models.find(name, caller.models))


def _card(model: ListedModel) -> ModelCard:
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.provider or "headrace",
        "type": "model",
        "display_name": model.model,
        "created_at": datetime.fromtimestamp(model.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _position(cards: list[ModelCard], parameter: str, model_id: str) -> int:
    for at, card in enumerate(cards):
        if card["id"] == model_id:
            return at
    raise InvalidRequest(f"{parameter}: no such model; use an id of the list")

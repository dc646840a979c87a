"""Routes of the gateway itself: health, metrics, models."""

import asyncio

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from gateway.api.error_catalog import CALLER, error_responses
from gateway.api.response_models import Health, ModelCard, ModelList, Readiness
from gateway.state import Caller, Gateway
from shared.broker.client import check_fitness
from shared.errors import BrokerUnavailable, Draining
from shared.metrics import exposition
from shared.version import VERSION

router = APIRouter()

_READY_WITHIN_S = 2.0


@router.get("/healthz")
async def healthz() -> Health:
    """Respond 200: this process is running."""
    return {"status": "ok", "version": VERSION}


@router.get("/readyz", responses=error_responses("broker_unavailable", "broker_unfit", "draining"))
async def readyz(gateway: Gateway) -> Readiness:
    """Respond 200 if Redis is available and this gateway is not draining, else 503."""
    if gateway.hub.draining:
        raise Draining
    try:
        async with asyncio.timeout(_READY_WITHIN_S):
            await check_fitness(gateway.client)
    except TimeoutError:
        raise BrokerUnavailable from None
    return {"status": "ready"}


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics() -> Response:
    """Return the metrics in Prometheus' text format."""
    return Response(exposition(), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/models", responses=error_responses(*CALLER, "no_models"))
async def models(gateway: Gateway, caller: Caller) -> ModelList:
    """List the available models that the credentials allow. ``provider/*`` means any name, for a provider without a
    list."""
    listed = await gateway.models.listed(caller.models)
    return {"object": "list", "data": [_card(provider, model) for provider, model in listed]}


# Described by OpenAI, not here.
@router.get("/v1/models/{name:path}", include_in_schema=False)
async def model(gateway: Gateway, caller: Caller, name: str) -> ModelCard:
    """Return the model of this name; 404 if it does not exist, or the credentials do not allow it."""
    return _card(*await gateway.models.find(name, caller.models))


def _card(provider: str, model: str) -> ModelCard:
    return {"id": f"{provider}/{model}", "object": "model", "created": 0, "owned_by": provider}

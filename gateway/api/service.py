"""Routes of the gateway itself: health, metrics."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from gateway.api.descriptions import SERVER
from gateway.api.error_catalog import BROKER, error_responses
from gateway.api.response_models import Health, Readiness
from gateway.state import Gateway
from shared.errors import BrokerUnavailable, Draining, NoModels, Unavailable
from shared.metrics import exposition
from shared.version import VERSION

router = APIRouter(tags=[SERVER])


@router.get("/healthz", operation_id="get_health", summary="Is the process running?")
async def healthz() -> Health:
    """Respond 200: this process is running."""
    return {"status": "ok", "version": VERSION}


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Can it serve requests?",
    responses=error_responses(*BROKER, "no_models", "draining"),
)
async def readyz(gateway: Gateway) -> Readiness:
    """Respond 200 if Redis is usable, a worker has published its models since the start and this gateway is not
    draining, else 503 with the reason. ``accepting`` is false while no worker takes new requests or Redis is full;
    resumes work all the same."""
    if gateway.hub.draining:
        return _not_ready(Draining())  # type: ignore[return-value]  # a response is sent as it is
    try:
        return {"status": "ready", "accepting": await gateway.readiness.is_accepting()}
    except (BrokerUnavailable, NoModels) as error:
        return _not_ready(error)  # type: ignore[return-value]


@router.get(
    "/metrics", operation_id="get_metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse
)
async def metrics() -> Response:
    """Return the metrics in Prometheus' text format."""
    return Response(exposition(), media_type=CONTENT_TYPE_LATEST)


def _not_ready(error: Unavailable) -> JSONResponse:
    """Build the response; its reason is one word, without an address: this path needs no credentials."""
    reason = error.reason if isinstance(error, BrokerUnavailable) else error.code
    failure = {"code": error.code, "message": error.message, "retryable": error.retryable}
    headers = {"Retry-After": str(error.retry_after_s)}
    return JSONResponse({"error": failure, "reason": reason}, error.http_status, headers=headers)

"""Checks by a worker's hooks of requests whose gateway has none: one of 0.2, or one that is yet to be restarted."""

import logging

from shared.errors import GenerationError, HookFailed, RequestError
from shared.hooks import RequestContext
from shared.request_check import check
from shared.schemas import ChatRequest, StoredRequest
from workers.jobs.run import Run

logger = logging.getLogger(__name__)


async def check_unless_checked(request: StoredRequest, run: Run, timeout_s: float) -> ChatRequest:
    """Return the request to send. What is stored stays as the client sent it. Raises :class:`GenerationError` if the
    hooks refuse it or fail."""
    if run.hooks is None or "hooks" in run.fields:
        return request
    detail = "its gateway lacks HEADRACE_HOOKS, so this worker checked it; set it on every gateway"
    logger.warning("request checked late", extra={"stream_id": run.stream_id, "detail": detail})
    context = RequestContext(run.fields["principal"].decode(), run.fields.get("key_id", b"").decode() or None)
    try:
        checked = await check(run.hooks, request, context, timeout_s)
    except (RequestError, HookFailed) as error:
        summary = "a hook refused the request, or failed"
        raise GenerationError(error.code, error.message, retryable=error.retryable, summary=summary) from None
    run.ignored = (*run.ignored, *checked.lost)
    return checked.request

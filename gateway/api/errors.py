"""Renders every error as ``{"error": {"code", "message", "retryable"}}``, or in the format of the path's dialect."""

import logging
import time

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException

from gateway.dialects.anthropic import errors as anthropic_errors
from gateway.dialects.openai_chat import errors as openai_errors
from gateway.dialects.status_codes import GenerationFailed
from shared.errors import HeadraceError, LimitReached, Unauthenticated

logger = logging.getLogger(__name__)

#: An error's detail is logged at most this often: every request may meet the same error.
_DETAIL_INTERVAL_S = 60.0
_next_detail_at: dict[tuple[str, str], float] = {}

#: Paths of the SDKs.
_OPENAI = ("/v1/chat/", "/v1/responses", "/v1/models/")
_ANTHROPIC = "/v1/messages"
_CODES = {404: "not_found", 405: "method_not_allowed", 408: "request_timeout"}


def install(app: FastAPI) -> None:
    app.add_exception_handler(HeadraceError, respond)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def error_response(
    path: str,
    status: int,
    code: str,
    message: str,
    *,
    retryable: bool = False,
    headers: dict[str, str] | None = None,
    provider_code: str | None = None,
    param: str | None = None,
) -> JSONResponse:
    """Build the response in the format of the dialect that belongs to ``path``."""
    if path.startswith(_OPENAI):
        status, body = openai_errors.answer(status, code, message, provider_code=provider_code, param=param)
    elif path.startswith(_ANTHROPIC):
        status, body = anthropic_errors.answer(status, code, message)
    else:
        body = {"error": {"code": code, "message": message, "retryable": retryable}}
        return JSONResponse(body, status, headers=headers)
    # The SDKs retry some statuses by default, whether it helps or not.
    return JSONResponse(body, status, headers={**(headers or {}), "X-Should-Retry": str(retryable).lower()})


async def respond(request: Request, error: Exception) -> JSONResponse:
    """Build the response to one of our own errors, and log its detail."""
    assert isinstance(error, HeadraceError)  # noqa: S101
    _log_detail(error)
    # A key belongs to the failed answer: a retry with the same key would get the same failure.
    retryable = error.retryable and not (isinstance(error, GenerationFailed) and "idempotency-key" in request.headers)
    wait_s = getattr(error, "retry_after_s", None) if retryable else None
    headers = {"Retry-After": str(wait_s)} if wait_s is not None else {}
    if isinstance(error, LimitReached):
        headers = error.headers
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    return error_response(
        request.url.path,
        error.http_status,
        error.code,
        error.message,
        retryable=retryable,
        headers=headers,
        provider_code=getattr(error, "provider_code", None),
        param=getattr(error, "param", None),
    )


def _log_detail(error: HeadraceError) -> None:
    """Log the operator's side of an error, which the response does not show."""
    now, key = time.monotonic(), (error.code, error.detail)
    if error.detail and now >= _next_detail_at.get(key, now):
        _next_detail_at[key] = now + _DETAIL_INTERVAL_S
        cause = repr(error.__cause__) if error.__cause__ is not None else None
        logger.warning("request refused", extra={"code": error.code, "detail": error.detail, "cause": cause})


async def _validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    problems = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors()[:5])
    return error_response(request.url.path, 422, "invalid_request", problems)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101
    code = _CODES.get(error.status_code, "http_error")
    headers = dict(error.headers or {})
    if "allow" in map(str.lower, headers) and (methods := _methods(request)):
        headers = {"Allow": ", ".join(sorted(methods))}
    return error_response(request.url.path, error.status_code, code, str(error.detail), headers=headers)


def _methods(request: Request) -> set[str]:
    """Return the methods of the requested path: the framework names those of one route, and a path may have
    several."""
    if (requested := request.scope.get("route")) is None:
        return set()
    routes = [route for route in iter_route_contexts(request.app.routes) if route.path == requested.path]
    return {method for route in routes if route.include_in_schema for method in route.methods or ()}


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    # Starlette logs the traceback itself after this response.
    return error_response(request.url.path, 500, "internal_error", "internal error; the server logged it")

"""Renders errors as ``{"error": {"code", "message", "retryable"}}``, or in the format of the request's dialect."""

import logging
import time
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException

from gateway.api.error_dialects import Dialect, dialect_of
from gateway.api.route_hints import not_found, wrong_method
from gateway.dialects.anthropic import errors as anthropic_errors
from gateway.dialects.openai_chat import errors as openai_errors
from gateway.dialects.status_codes import GenerationFailed
from shared.errors import HeadraceError, LimitReached, Unauthenticated
from shared.schemas.field_problems import problem_of

logger = logging.getLogger(__name__)

#: An error's detail is logged at most this often: every request may meet the same error.
_DETAIL_INTERVAL_S = 60.0
_next_detail_at: dict[tuple[str, str], float] = {}

_CODES = {404: "not_found", 405: "method_not_allowed", 408: "request_timeout"}


def install(app: FastAPI) -> None:
    app.add_exception_handler(HeadraceError, respond)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def error_response(
    request: Request,
    status: int,
    code: str,
    message: str,
    *,
    retryable: bool = False,
    headers: dict[str, str] | None = None,
    provider_code: str | None = None,
    param: str | None = None,
    members: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Build the response in the format of the request's dialect. ``members``: more of the error, in the native
    format and OpenAI's."""
    own = {"code": code, "message": message, "retryable": retryable}
    more = dict(members or {})
    match dialect_of(request.scope):
        case Dialect.NATIVE:
            return JSONResponse({"error": own | more}, status, headers=headers)
        case Dialect.OPENAI:
            status, body = openai_errors.answer(status, code, message, provider_code=provider_code, param=param)
            body["error"] |= more
        case Dialect.ANTHROPIC:
            status, body = anthropic_errors.answer(status, code, message, provider_code)
        case Dialect.EITHER_OPENAI | Dialect.EITHER_ANTHROPIC as dialect:
            status, body = _for_either(dialect, status, own)
    # The SDKs retry some statuses by default, whether it helps or not.
    return JSONResponse(body, status, headers={**(headers or {}), "X-Should-Retry": str(retryable).lower()})


def _for_either(dialect: Dialect, status: int, own: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return status and body for clients of any dialect; only the error's type depends on it."""
    openai_status, openai_body = openai_errors.answer(status, own["code"], own["message"])
    status, body = anthropic_errors.answer(status, own["code"], own["message"])
    if dialect is Dialect.EITHER_OPENAI:
        status, body["error"]["type"] = openai_status, openai_body["error"]["type"]
    return status, {**body, "error": {**own, **openai_body["error"], **body["error"]}}


async def response_to(request: Request, error: Exception) -> JSONResponse:
    """Build the response to any error, as the application does for a request; log one that is a bug."""
    if isinstance(error, HeadraceError):
        return await respond(request, error)
    if isinstance(error, HTTPException):
        return await _http(request, error)
    logger.error("request failed", exc_info=error)
    return await _unexpected(request, error)


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
        request,
        error.http_status,
        error.code,
        error.message,
        retryable=retryable,
        headers=headers,
        provider_code=getattr(error, "provider_code", None),
        param=getattr(error, "param", None),
        members=getattr(error, "members", None),
    )


def _log_detail(error: HeadraceError) -> None:
    """Log the operator's side of an error, which the response does not show."""
    now, key = time.monotonic(), (error.code, error.detail)
    if error.detail and now >= _next_detail_at.get(key, now):
        _next_detail_at[key] = now + _DETAIL_INTERVAL_S
        cause = repr(error.__cause__) if error.__cause__ is not None else None
        extra = {"code": error.code, "detail": error.detail, "cause": cause, **error.log_fields}
        logger.warning("request refused", extra=extra)


async def _validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    problems = (
        f"{'.'.join(map(str, each['loc'][1:]))}: {problem_of(each, is_text=True)}" for each in error.errors()[:5]
    )
    return error_response(request, 422, "invalid_request", "; ".join(problems))


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101
    code = _CODES.get(error.status_code, "http_error")
    headers = dict(error.headers or {})
    if (allowed := {name.lower(): value for name, value in headers.items()}.get("allow")) is not None:
        methods = _methods(request) or set(allowed.split(", "))
        methods |= {"HEAD"} if "GET" in methods else set()  # see gateway/edge/head.py
        headers = {"Allow": ", ".join(sorted(methods))}
    message = _message_of(request, error, headers.get("Allow", "").split(", "))
    return error_response(request, error.status_code, code, message, headers=headers)


def _message_of(request: Request, error: HTTPException, allowed: list[str]) -> str:
    """Return the error's own message, or one in place of the framework's."""
    match str(error.detail):
        case "Not Found":
            return not_found(request.app, request.scope["path"])
        case "Method Not Allowed":
            template = getattr(request.scope.get("route"), "path", None)
            return wrong_method(request.app, request.method, request.scope["path"], template, allowed)
        case message:
            return message


def _methods(request: Request) -> set[str]:
    """Return the methods of the requested path: the framework names those of one route, and a path may have
    several."""
    if (requested := request.scope.get("route")) is None:
        return set()
    routes = [route for route in iter_route_contexts(request.app.routes) if route.path == requested.path]
    return {method for route in routes if route.include_in_schema for method in route.methods or ()}


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    # Starlette logs the traceback itself after this response.
    return error_response(request, 500, "internal_error", "internal error; the server logged it")

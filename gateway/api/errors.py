"""Every error as ``{"error": {"code", "message", "retryable"}}``."""

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException

from shared.errors import HeadraceError, Unauthenticated, Unavailable

logger = logging.getLogger(__name__)

_CODES = {404: "not_found", 405: "method_not_allowed", 408: "request_timeout"}


def install(app: FastAPI) -> None:
    app.add_exception_handler(HeadraceError, _ours)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def error_response(
    status: int, code: str, message: str, *, retryable: bool = False, headers: dict[str, str] | None = None
) -> JSONResponse:
    body = {"error": {"code": code, "message": message, "retryable": retryable}}
    return JSONResponse(body, status, headers=headers)


async def _ours(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HeadraceError)  # noqa: S101  what it is registered for
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Unavailable) else {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    return error_response(error.http_status, error.code, error.message, retryable=error.retryable, headers=headers)


async def _validation(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    problems = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors()[:5])
    return error_response(422, "invalid_request", problems)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101
    code = _CODES.get(error.status_code, "http_error")
    headers = dict(error.headers or {})
    if "allow" in map(str.lower, headers) and (methods := _methods(request)):
        headers = {"Allow": ", ".join(sorted(methods))}
    return error_response(error.status_code, code, str(error.detail), headers=headers)


def _methods(request: Request) -> set[str]:
    """Those of the path that was asked for: the framework names only one route's, and a path may have several."""
    if (asked := request.scope.get("route")) is None:
        return set()
    routes = [route for route in iter_route_contexts(request.app.routes) if route.path == asked.path]
    return {method for route in routes if route.include_in_schema for method in route.methods or ()}


async def _unexpected(_: Request, error: Exception) -> JSONResponse:
    # Starlette logs the trace itself after this answer has been sent.
    return error_response(500, "internal_error", "something went wrong here; it was logged")

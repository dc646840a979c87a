"""Error responses in the format of OpenAI's SDKs."""

from http import HTTPStatus
from typing import Any, Final

from shared.protocol.events import Error

_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
#: Errors with a different status or code in OpenAI's API, by our code.
_THEIRS: Final = {
    "unknown_model": (404, "model_not_found"),
    "model_not_allowed": (403, "model_not_found"),
    "provider_model_not_found": (404, "model_not_found"),
    "invalid_request": (400, "invalid_request"),
    "previous_response_not_found": (400, "previous_response_not_found"),
    "unsupported_field": (400, "unsupported_field"),
    "price_unknown": (400, "price_unknown"),
    # Applications look for this code. OpenAI sends it with 429, which many clients retry (docs/adr/0026-budgets.md).
    "budget_reached": (402, "insufficient_quota"),
}


def answer(
    status: int, code: str, message: str, *, provider_code: str | None = None, param: str | None = None
) -> tuple[int, dict[str, Any]]:
    """Return status and body. A provider's own code replaces ours. Without ``param``, it is the field that the
    message names at its beginning, if any."""
    status, code = _THEIRS.get(code, (status, code))
    kind = _TYPES.get(
        status, "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    )
    field, colon, _ = message.partition(":")
    if param is None and colon and status == HTTPStatus.BAD_REQUEST and " " not in field:
        param = field
    return status, {"error": {"message": message, "type": kind, "param": param, "code": provider_code or code}}


def streamed(error: Error) -> dict[str, Any]:
    """Return the body of an error within a stream."""
    is_refusal = error.code in {"provider_rejected", "unsupported_field"}
    kind = "invalid_request_error" if is_refusal else "server_error"
    return {
        "message": error.message,
        "type": kind,
        "code": error.provider_code or error.code,
        "param": error.param or None,
    }

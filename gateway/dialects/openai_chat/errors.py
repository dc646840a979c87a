"""Error responses in the format of OpenAI's SDKs."""

from http import HTTPStatus
from typing import Any, Final

_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
#: Errors with a different status or code in OpenAI's API, by our code.
_THEIRS: Final = {
    "unknown_model": (404, "model_not_found"),
    "provider_model_not_found": (404, "model_not_found"),
    "invalid_request": (400, "invalid_request"),
}


def answer(status: int, code: str, message: str) -> tuple[int, dict[str, Any]]:
    """Return status and body. ``param`` is the field that the message names at its beginning, if any."""
    status, code = _THEIRS.get(code, (status, code))
    kind = _TYPES.get(
        status, "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    )
    field, colon, _ = message.partition(":")
    param = field if colon and status == HTTPStatus.BAD_REQUEST and " " not in field else None
    return status, {"error": {"message": message, "type": kind, "param": param, "code": code}}

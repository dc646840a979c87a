"""Error codes of a failed response. Clients of OpenAI retry every failure whose code is not one of a refusal, so a
refusal gets OpenAI's code."""

from typing import Final

from shared.protocol.events import Error
from shared.provider_codes import IMAGE_CODES

_CODES: Final = {
    "provider_rejected": "invalid_prompt",
    "provider_model_not_found": "invalid_prompt",
    "unsupported_field": "invalid_prompt",
    "provider_rate_limited": "rate_limit_exceeded",
}
#: Codes of providers that OpenAI itself has in a failed response. A code about a parameter is part of an HTTP error.
_PROVIDER_CODES: Final = IMAGE_CODES | {"context_length_exceeded", "invalid_prompt", "rate_limit_exceeded"}


def failed_response(error: Error) -> dict[str, str]:
    """Return the member ``error`` of a failed response."""
    code = _CODES.get(error.code, error.code)
    if error.provider_code and error.provider_code in _PROVIDER_CODES:
        code = error.provider_code
    return {"code": code, "message": error.message}

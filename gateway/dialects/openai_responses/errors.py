"""Error codes of a failed response. Clients of OpenAI retry every failure whose code is not one of a refusal, so a
refusal gets OpenAI's code."""

from typing import Final

from shared.protocol.events import Error

_CODES: Final = {
    "provider_rejected": "invalid_prompt",
    "provider_model_not_found": "invalid_prompt",
    "unsupported_field": "invalid_prompt",
    "provider_rate_limited": "rate_limit_exceeded",
}
#: Codes of providers that OpenAI itself has in a failed response. A code about a parameter is part of an HTTP error.
_PROVIDER_CODES: Final = frozenset(
    {
        "context_length_exceeded",
        "empty_image_file",
        "failed_to_download_image",
        "image_content_policy_violation",
        "image_file_not_found",
        "image_file_too_large",
        "image_parse_error",
        "image_too_large",
        "image_too_small",
        "invalid_base64_image",
        "invalid_image",
        "invalid_image_format",
        "invalid_image_mode",
        "invalid_image_url",
        "invalid_prompt",
        "rate_limit_exceeded",
        "unsupported_image_media_type",
    }
)


def failed_response(error: Error) -> dict[str, str]:
    """Return the member ``error`` of a failed response."""
    code = _CODES.get(error.code, error.code)
    if error.provider_code and error.provider_code in _PROVIDER_CODES:
        code = error.provider_code
    return {"code": code, "message": error.message}

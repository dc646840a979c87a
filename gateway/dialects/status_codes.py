"""HTTP statuses of generation errors that occur before any output, for dialects that report them by status."""

from typing import Final

from shared.errors import HeadraceError
from shared.protocol.events import Error

#: Statuses by error code. Other codes are provider errors and get 502; errors of our own get 500.
_STATUSES: Final = {
    "provider_rate_limited": 429,
    "provider_model_not_found": 404,
    "provider_rejected": 400,
    "unsupported_field": 400,
    "provider_unavailable": 503,
    "provider_circuit_open": 503,
    "provider_connect_timeout": 504,
    "provider_first_token_timeout": 504,
    "provider_idle_timeout": 504,
    "deadline_exceeded": 504,
    "queue_timeout": 503,
    "worker_lost": 503,
    "stream_lost": 503,
    "internal_error": 500,
    "cancelled": 409,
    "answer_refused": 422,
    "request_refused": 422,
    "hook_failed": 503,
}
_RETRY_AFTER_S: Final = 1


class GenerationFailed(HeadraceError):
    """A generation failed without output. ``retry_after_s``: None if a retry would not help."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.message)
        self.code = error.code
        self.http_status = _STATUSES.get(error.code, 502)
        self.retryable = error.retryable
        self.retry_after_s = _RETRY_AFTER_S if error.retryable else None
        self.provider_code = error.provider_code or None
        self.param = error.param or None

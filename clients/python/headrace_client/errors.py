"""The one error of this library. It contains neither a prompt nor a key, and no address with a ticket."""


class HeadraceError(Exception):
    """A request that failed.

    ``code`` is stable and for machines, ``message`` is for people. ``retryable``: the same request may succeed
    later. ``status`` is the HTTP status, or None if there was no response. ``retry_after_s`` is the server's
    ``Retry-After``. The gateway's documentation of the protocol lists its codes. This library adds ``unreachable``,
    ``not_headrace`` (another server answered), ``invalid_event`` and ``http_<status>`` (an error page of a proxy).
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retryable = retryable
        self.status = status
        self.retry_after_s = retry_after_s

    def after_retries(self, total_s: float) -> "HeadraceError":
        """Return the error that ends the retries: the last failure, with the time that was spent on it."""
        message = f"gave up after {total_s:g} s: {self.message}"
        return HeadraceError(
            self.code, message, retryable=self.retryable, status=self.status, retry_after_s=self.retry_after_s
        )

"""Error responses of a gateway."""

import httpx2


def code_of(response: httpx2.Response) -> tuple[int, str]:
    """Return the HTTP status and the error code."""
    return response.status_code, response.json()["error"]["code"]

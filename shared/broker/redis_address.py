"""The address of Redis as logs and messages show it: without user, password and options."""

from urllib.parse import urlsplit

_UNNAMED = "an invalid address"


def safe_address(url: str) -> str:
    """Return the URL without its credentials and options."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return _UNNAMED
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

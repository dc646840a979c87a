"""The address of OpenAI itself, whose defaults other servers do not have."""

from urllib.parse import urlsplit


def is_openai(base_url: str) -> bool:
    """Return True for an address of OpenAI itself."""
    host = urlsplit(base_url).hostname or ""
    return host == "api.openai.com" or host.endswith(".api.openai.com")

"""Environments of the processes that ``headrace up`` starts: each gets only the secrets that it uses."""

from collections.abc import Collection, Mapping
from typing import Final

#: Keys and addresses of providers, credentials of clouds, and other variables of their SDKs, which gateways do not
#: call; and the secret that signs webhooks.
_OF_WORKERS: Final = (
    *("OPENAI_", "ANTHROPIC_", "OLLAMA_", "AWS_", "AZURE_", "GOOGLE_", "IDENTITY_", "MSI_"),
    "HEADRACE_WEBHOOK_SECRET",
)
#: The key of the command line, which is a client.
_OF_CLIENTS: Final = ("HEADRACE_API_KEY",)
#: Authentication and tickets. Workers check no credentials; the settings of jwt are invalid without its secret.
_OF_GATEWAYS: Final = ("HEADRACE_SECRET", "HEADRACE_AUTH", "HEADRACE_JWT_")


def of_gateway(environment: Mapping[str, str], secrets: Collection[str] = ()) -> dict[str, str]:
    """Return the environment without the secrets of workers. ``secrets``: further variables with keys of
    providers."""
    own = _without(environment, (*_OF_WORKERS, *_OF_CLIENTS))
    return {name: value for name, value in own.items() if name not in secrets}


def of_worker(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the secrets of gateways."""
    return _without(environment, (*_OF_GATEWAYS, *_OF_CLIENTS))


def _without(environment: Mapping[str, str], prefixes: tuple[str, ...]) -> dict[str, str]:
    """Drop names by prefix, in any case: settings are read in any case too."""
    return {name: value for name, value in environment.items() if not name.upper().startswith(prefixes)}

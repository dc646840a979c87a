"""The settings of the gateways and workers that the programs are run against: the defaults, but for the lists of
models and the retries, so that each cell's requests can be counted."""

from typing import Any, Final

SETTINGS: Final[dict[str, Any]] = {
    "anthropic_models": "claude-opus-5-5,claude-sonnet-4-5,claude-haiku-4-5",
    "openai_models": "gpt-5,gpt-5.5",
    "provider_retries": 0,
    "concurrency": 50,
}

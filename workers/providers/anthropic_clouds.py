"""Claude on Amazon Bedrock and on Google Vertex AI, by the SDK's own clients. Never run against the real services.

The clients take the credentials of their cloud from the environment. Neither service has a list of models that the
Messages API could use, so the configuration names the models.
"""

from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any, Final

import httpx2
from anthropic import (
    AsyncAnthropic,
    AsyncAnthropicBedrock,
    AsyncAnthropicVertex,
    AsyncStream,
    DefaultAioHttpClient,
    not_given,
)

from workers.providers.anthropic import CATCH, AnthropicProvider
from workers.providers.endpoint import ApiKey, Endpoint
from workers.providers.errors import provider_failure
from workers.providers.http_calls import sdk_options
from workers.providers.posts import Posts, SdkPosts
from workers.providers.response_body import ResponseBody

_GLOBAL: Final = "global"


def _errors(module: str, name: str) -> tuple[type[Exception], ...]:
    """Return an exception's class, if its package is installed."""
    try:
        return (getattr(import_module(module), name),)
    except ImportError:
        return ()


class CloudProvider(AnthropicProvider):
    """Common part of both clouds."""

    #: The clients raise RuntimeError and exceptions of the cloud's package if they find no credentials.
    _catch = (
        *CATCH,
        RuntimeError,
        *_errors("botocore.exceptions", "BotoCoreError"),
        *_errors("google.auth.exceptions", "GoogleAuthError"),
    )

    def _made_posts(self, endpoint: Endpoint) -> Posts:
        return SdkPosts(self._client, AsyncStream)

    async def probe(self, key: ApiKey | None = None) -> tuple[str, ...]:
        detail = f"{self.name} has no list of models"
        raise provider_failure("provider_rejected", self.name, detail=detail)


class BedrockProvider(CloudProvider):
    """A provider of kind ``anthropic-bedrock``."""

    counts_tokens = False

    def _made_client(self, endpoint: Endpoint) -> Any:
        options = sdk_options(endpoint, DefaultAioHttpClient)
        return AsyncAnthropicBedrock(aws_region=endpoint.entry.region, open_telemetry=False, **options)

    def _made_posts(self, endpoint: Endpoint) -> Posts:
        return _BedrockPosts(self._client, AsyncStream)


class VertexProvider(CloudProvider):
    """A provider of kind ``anthropic-vertex``."""

    def _made_client(self, endpoint: Endpoint) -> Any:
        return AsyncAnthropicVertex(
            region=endpoint.entry.region or _GLOBAL,
            project_id=endpoint.entry.project or not_given,
            open_telemetry=False,
            **sdk_options(endpoint, DefaultAioHttpClient),
        )


class _BedrockPosts(SdkPosts):
    """Requests whose answers are read as server-sent events: Bedrock frames them in a format of its own."""

    def _body(self, response: httpx2.Response) -> ResponseBody:
        return ResponseBody(_as_sse(self._client, response))


async def _as_sse(client: AsyncAnthropic, response: httpx2.Response) -> AsyncIterator[bytes]:
    async for event in client._make_sse_decoder().aiter_bytes(response.aiter_bytes()):
        yield b"data: %b\n\n" % event.data.encode()

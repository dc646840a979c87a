"""Response object of OpenAI's Responses."""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from gateway.dialects.openai_responses.echo import Large, repeated
from gateway.dialects.openai_responses.offered_tools import ClientTool
from shared.protocol.events import Usage

Body = dict[str, Any]


class Stored(msgspec.Struct, frozen=True, omit_defaults=True):
    """Attributes of the request that its response needs, as stored with the stream. ``echoed``: repeated by the
    response. ``forms``: the client's form of tools, by the name of the offered function. ``encrypts_reasoning``:
    reasoning items get ``encrypted_content``. ``large``: attributes that cannot be read from the stored request."""

    background: bool = False
    previous_response_id: str | None = None
    encrypts_reasoning: bool = False
    echoed: Body = {}
    forms: dict[str, ClientTool] = {}
    large: dict[str, msgspec.Raw] | None = None


@dataclass(frozen=True, slots=True)
class ResponseInfo:
    """Attributes of a response other than its answer. ``created_at``: Unix seconds. ``large``: attributes of the
    request that it repeats."""

    stream_id: str
    model: str
    created_at: int
    stored: Stored = field(default_factory=Stored)
    metadata: Body = field(default_factory=dict)
    large: Large = None


def encode_stored(stored: Stored) -> str:
    return msgspec.json.encode(stored).decode()


def decode_stored(raw: str | None) -> Stored:
    """Return the stored attributes; the defaults for a request of another dialect."""
    return msgspec.json.decode(raw, type=Stored) if raw else Stored()


class Response:
    """Response object under construction. ``output``: the items in order."""

    def __init__(self, info: ResponseInfo) -> None:
        self.info = info
        self.status = "queued"
        self.output: list[Body] = []
        self.error: Body | None = None
        self.incomplete: Body | None = None
        self.usage: Body | None = None
        self.service_tier: str | None = None
        self.upstream: Body = {}  # further members of the upstream's own response

    @property
    def body(self) -> Body:
        info = self.info
        return {
            "id": f"resp_{info.stream_id}",
            "object": "response",
            "created_at": info.created_at,
            "status": self.status,
            "background": info.stored.background,
            "previous_response_id": info.stored.previous_response_id,
            "error": self.error,
            "incomplete_details": self.incomplete,
            "model": info.model,
            "output": self.output,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "truncation": "disabled",
            **repeated(info.large),
            **info.stored.echoed,
            **({"service_tier": self.service_tier} if self.service_tier is not None else {}),
            **self.upstream,
            "metadata": info.metadata,
            "usage": self.usage,
        }


def usage_of(usage: Usage) -> Body:
    """Return the usage. The SDKs' types require all details: those that were not counted are 0."""
    details = {"cached_tokens": usage.cached_tokens or 0, "cache_write_tokens": usage.cache_write_tokens or 0}
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": details,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }

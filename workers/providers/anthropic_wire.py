"""Types of a Messages stream's events, as far as the reader needs them."""

from typing import Any, Final

import msgspec

from workers.providers.usage_counts import whole_number

#: Kind of the block that a delta belongs to, if the block's start did not come.
KIND_BY_DELTA: Final = {"signature_delta": "thinking", "citations_delta": "text"}


class WireBlock(msgspec.Struct):
    type: Any = None
    id: Any = None
    name: Any = None
    text: Any = None
    thinking: Any = None
    input: Any = None


class WireDelta(msgspec.Struct):
    type: Any = None
    text: Any = None
    thinking: Any = None
    partial_json: Any = None
    stop_reason: Any = None


class WireMessage(msgspec.Struct):
    content: list[WireBlock] | None = None
    stop_reason: Any = None
    usage: Any = None


class WireEvent(msgspec.Struct, rename={"metrics": "amazon-bedrock-invocationMetrics"}):
    type: Any = None
    index: Any = 0
    content_block: WireBlock | None = None
    delta: WireDelta | None = None
    message: Any = None
    usage: Any = None
    error: Any = None
    metrics: Any = None


def block_index(event: WireEvent) -> int:
    return index if (index := whole_number(event.index)) is not None else 0


event_decoder: Final = msgspec.json.Decoder(WireEvent)
message_decoder: Final = msgspec.json.Decoder(WireMessage)
#: Decodes all members.
object_decoder: Final = msgspec.json.Decoder(dict[str, Any])

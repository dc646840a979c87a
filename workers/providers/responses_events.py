"""Events of Responses, as structures that are fast to decode.

Members have any type, because servers differ in them. Events other than text deltas are rare, so they are decoded
again as a whole.
"""

from typing import Any, Final

import msgspec


class Event(msgspec.Struct):
    type: Any = None
    output_index: Any = None
    item_id: Any = None
    content_index: Any = None
    summary_index: Any = None
    delta: Any = None
    logprobs: Any = None


class NumberedEvent(Event):
    sequence_number: Any = None


decoder: Final = msgspec.json.Decoder(Event)
numbered_decoder: Final = msgspec.json.Decoder(NumberedEvent)

TEXT: Final = "response.output_text.delta"
#: Deltas of texts, with the type of the part that holds the text.
PARTS: Final = {
    TEXT: "output_text",
    "response.refusal.delta": "refusal",
    "response.reasoning_summary_text.delta": "summary_text",
    "response.reasoning_text.delta": "reasoning_text",
}
#: Ends of texts, with the type of the part and the member that holds the whole text.
WHOLE_TEXTS: Final = {
    "response.output_text.done": ("output_text", "text"),
    "response.refusal.done": ("refusal", "refusal"),
    "response.reasoning_summary_text.done": ("summary_text", "text"),
    "response.reasoning_text.done": ("reasoning_text", "text"),
}
WHOLE_PARTS: Final = frozenset({"response.content_part.done", "response.reasoning_summary_part.done"})
ARGUMENTS: Final = "response.function_call_arguments.delta"
INPUT: Final = "response.custom_tool_call_input.delta"
ADDED: Final = "response.output_item.added"
DONE: Final = "response.output_item.done"
ANNOTATION: Final = "response.output_text.annotation.added"
#: The last event of an answer, by the status of the response.
ENDS: Final = {
    "response.completed": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
    "response.cancelled": "cancelled",
    "response.canceled": "cancelled",
}
#: Events that contain the response.
RESPONSE_EVENTS: Final = frozenset({"response.created", "response.queued", "response.in_progress", *ENDS})
#: Item types of text and of the calls that clients answer. All other items belong to tools of the provider.
TEXTS: Final = frozenset({"message", "reasoning"})
CALLS: Final = frozenset({"function_call", "custom_tool_call"})

"""The canonical request: what a client may ask, free of any provider's dialect. Its words are those of OpenAI's Chat
Completions where that has a word, so that what clients have already can be sent as it is.
"""

from shared.schemas.chat import ChatRequest, OnDisconnect, OnWorkerLost, parse_chat_request
from shared.schemas.messages import FunctionCall, ImagePart, Message, Role, TextPart, ToolCall
from shared.schemas.response_format import ResponseFormat
from shared.schemas.tools import NamedToolChoice, Tool, ToolChoice

__all__ = [
    "ChatRequest",
    "FunctionCall",
    "ImagePart",
    "Message",
    "NamedToolChoice",
    "OnDisconnect",
    "OnWorkerLost",
    "ResponseFormat",
    "Role",
    "TextPart",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "parse_chat_request",
]

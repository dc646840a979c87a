"""The canonical request, independent of any provider's dialect.

Its fields are named as in OpenAI's Chat Completions if they exist there, so that clients can send existing content
unchanged.
"""

from shared.schemas.chat import ChatRequest, OnDisconnect, OnWorkerLost, StoredRequest, parse_chat_request
from shared.schemas.messages import FilePart, FunctionCall, ImagePart, Message, Role, TextPart, ToolCall
from shared.schemas.original import Original
from shared.schemas.request_budget import RequestBudget
from shared.schemas.response_format import ResponseFormat
from shared.schemas.tools import NamedToolChoice, Tool, ToolChoice

__all__ = [
    "ChatRequest",
    "FilePart",
    "FunctionCall",
    "ImagePart",
    "Message",
    "NamedToolChoice",
    "OnDisconnect",
    "OnWorkerLost",
    "Original",
    "RequestBudget",
    "ResponseFormat",
    "Role",
    "StoredRequest",
    "TextPart",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "parse_chat_request",
]

"""Client of Headrace: start an answer, read it over broken connections, and verify its webhook.

.. code-block:: python

    with headrace_client.Client("http://localhost:8000") as client:
        stream = client.start([{"role": "user", "content": "Hello"}], model="demo/demo")
        for event in stream:
            match event:
                case headrace_client.Token():
                    print(event.token, end="", flush=True)
                case headrace_client.Reset():
                    print("[again, from the start]")
"""

from headrace_client._retries import OnRetry, Retry
from headrace_client.answer import Answer
from headrace_client.async_client import AsyncClient, AsyncStream
from headrace_client.client import Client, Stream
from headrace_client.errors import HeadraceError
from headrace_client.events import (
    Continued,
    Done,
    Error,
    Event,
    Json,
    Other,
    Queued,
    Reasoning,
    Refusal,
    Reset,
    Start,
    Token,
    ToolCall,
    Waiting,
)
from headrace_client.statuses import (
    Call,
    CalledFunction,
    Chat,
    ChatList,
    ChatSummary,
    ChatTurn,
    Cost,
    Failure,
    StreamStatus,
    TargetUsage,
    Usage,
)
from headrace_client.webhooks import WebhookInvalid, verify_webhook

__version__ = "0.3.0"
__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncStream",
    "Call",
    "CalledFunction",
    "Chat",
    "ChatList",
    "ChatSummary",
    "ChatTurn",
    "Client",
    "Continued",
    "Cost",
    "Done",
    "Error",
    "Event",
    "Failure",
    "HeadraceError",
    "Json",
    "OnRetry",
    "Other",
    "Queued",
    "Reasoning",
    "Refusal",
    "Reset",
    "Retry",
    "Start",
    "Stream",
    "StreamStatus",
    "TargetUsage",
    "Token",
    "ToolCall",
    "Usage",
    "Waiting",
    "WebhookInvalid",
    "verify_webhook",
]

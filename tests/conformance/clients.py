"""The tested clients: official packages, at the versions of the locks."""

from functools import partial
from typing import Final

from tests.conformance import python_clients
from tests.conformance.outcome import Client

_cannot = partial(Client, resumes="not", held=True)
_asked = partial(Client, resumes="asked", held=False, joins=True)
_itself = partial(Client, resumes="itself", held=False, needs_key=True, joins=True)

CLIENTS: Final = (
    _cannot("openai, chat (Python)", "chat", python_clients.openai_chat, package="py openai"),
    _asked("openai, responses (Python)", "responses", python_clients.openai_responses, package="py openai"),
    _cannot("anthropic (Python)", "messages", python_clients.anthropic, package="py anthropic"),
    _asked("httpx-sse (Python)", "native", python_clients.plain, needs_key=True, package="py httpx-sse"),
    _cannot("openai, chat", "chat", "openai-chat", package="openai"),
    _asked("openai, responses", "responses", "openai-responses", package="openai"),
    _cannot("@anthropic-ai/sdk", "messages", "anthropic", package="@anthropic-ai/sdk"),
    _asked("ai, useChat", "ai", "ai-chat", needs_key=True, package="ai"),
    _cannot("ai, streamText by chat", "ai", "ai-openai-chat", needs_key=True, package="@ai-sdk/openai"),
    Client(
        "ai, streamText by responses",
        "ai",
        "ai-openai-responses",
        resumes="not",
        held=False,
        needs_key=True,
        package="@ai-sdk/openai",
    ),
    _asked("@ag-ui/client", "ag-ui", "ag-ui", needs_key=True, package="@ag-ui/client"),
    _itself("eventsource", "native", "eventsource", package="eventsource"),
    _itself("fetch-event-source", "native", "fetch-event-source", package="@microsoft/fetch-event-source"),
)
PROVIDERS: Final = ("openai", "anthropic", "ollama")

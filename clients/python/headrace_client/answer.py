"""The answer of a stream as far as it was read."""

from typing import Any

from headrace_client import events
from headrace_client._addresses import StreamAddress
from headrace_client._reading import Reading
from headrace_client.errors import HeadraceError
from headrace_client.statuses import Call, CalledFunction


class Answer:
    """Parts of one answer. A reset empties them: only the attempt that is read counts.

    ``json`` is the whole JSON answer, if there is one. ``error`` is the failure of the answer, and ``done`` its end.
    """

    def __init__(self, address: StreamAddress, reading: Reading) -> None:
        self._address = address
        self._reading = reading
        self.error: events.Error | None = None
        self.done: events.Done | None = None
        self.provider = ""
        self.model = ""
        self.tool_calls: list[Call] = []
        self.json: Any = None
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []

    @property
    def id(self) -> str:
        return self._address.id

    @property
    def url(self) -> str:
        """The URL for other readers. It may contain a ticket, which is a credential for this stream."""
        return self._address.stream_url

    @property
    def last_event_id(self) -> str:
        """The cursor after the last event. Save it to attach in another process."""
        return self._reading.last_event_id

    @property
    def text(self) -> str:
        self._text[:] = ["".join(self._text)]  # a caller may ask after each token
        return self._text[0]

    @property
    def reasoning(self) -> str:
        return "".join(self._reasoning)

    @property
    def refusal(self) -> str:
        return "".join(self._refusal)

    def raise_for_error(self) -> None:
        """Raise :class:`HeadraceError` if the answer failed."""
        if self.error is not None:
            raise HeadraceError(self.error.code, self.error.message, retryable=self.error.retryable)

    def _take(self, event: events.Event) -> events.Event:
        """Add an event that was read, and return it."""
        match event:
            case events.Start():
                if isinstance(event, events.Reset):
                    self._begin()
                self.provider, self.model = event.provider, event.model
            case events.Token():
                self._text.append(event.token)
            case events.Reasoning():
                self._reasoning.append(event.text)
            case events.Refusal():
                self._refusal.append(event.text)
            case events.ToolCall(complete=True):
                function = CalledFunction(name=event.name or "", arguments=event.arguments)
                self.tool_calls.append(Call(id=event.id or "", type="function", function=function))
            case events.Json(path=[]):
                self.json = event.value
            case events.Error():
                self.error = event
            case events.Done():
                self.done = event
        return event

    def _begin(self) -> None:
        self._text, self._reasoning, self._refusal = [], [], []
        self.tool_calls = []
        self.json = self.error = None

"""The synchronous client."""

import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, cast

import httpx2

from headrace_client import _requests
from headrace_client._addresses import Gateway, StreamAddress, checked_header
from headrace_client._calls import Calls
from headrace_client._reading import Reading
from headrace_client._responses import ended_early, unreachable
from headrace_client._retries import OnRetry
from headrace_client.answer import Answer
from headrace_client.errors import HeadraceError
from headrace_client.events import Event
from headrace_client.statuses import Chat, ChatList, StreamStatus


class Client:
    """Client of one gateway.

    ``user``: the user for whom a key with the scope ``act_for`` acts; without one, it acts as itself.
    ``retry_timeout_s``: failures without progress are retried for so long. ``on_retry`` is called before each retry.
    ``http``: an HTTP client of your own, such as one with a proxy or with certificates, or one for several clients;
    :meth:`close` does not close it.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        user: str | None = None,
        retry_timeout_s: float = 120,
        on_retry: OnRetry | None = None,
        http: httpx2.Client | None = None,
    ) -> None:
        self._gateway = Gateway(url.rstrip("/"), key, user)
        self._calls = Calls(self._gateway, retry_timeout_s, on_retry, http)

    def start(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        model: str,
        chat_id: str | None = None,
        history: Literal["add", "given"] | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> "Stream":
        """Start an answer and return its stream. The answer is generated with or without readers.

        ``chat_id``: your id of the conversation; ``messages`` are then only the new ones. ``history``: ``add`` if the
        chat must exist, ``given`` if ``messages`` are the whole conversation.
        ``fields``: other fields of the request, such as ``provider``, ``tools`` or ``on_disconnect``.
        ``idempotency_key``: with the same key and body, a later start attaches to the same answer.
        """
        body = {"model": model, "messages": messages, "chat_id": chat_id, "history": history, **fields}
        accepted = self._calls.call(_requests.start_request(self._gateway, body, idempotency_key))
        return Stream(self._calls, _requests.started(self._gateway, accepted))

    def attach(self, stream: str, *, last_event_id: str = "") -> "Stream":
        """Return a stream by its id or its URL, which may have a ticket.

        All events come, or with ``last_event_id`` those after it. Only the client's own gateway gets the key.
        """
        return Stream(self._calls, self._gateway.stream(stream), last_event_id)

    def chats(self, *, limit: int = 20, page: str | None = None) -> ChatList:
        """Return your chats, the last changed first. ``page``: ``next_page`` of the page before."""
        request = _requests.chats_request(self._gateway, None, limit, page)
        return cast(ChatList, self._calls.call(request))

    def chat(self, chat_id: str, *, limit: int = 20, page: str | None = None) -> Chat:
        """Return the turns of a chat, the oldest first. ``page``: ``next_page`` of the page before."""
        request = _requests.chats_request(self._gateway, chat_id, limit, page)
        return cast(Chat, self._calls.call(request))

    def status(self, stream: str) -> StreamStatus:
        """Return the answer so far."""
        return self.attach(stream).status()

    def cancel(self, stream: str) -> None:
        """Stop an answer; its text so far is kept. A cancel after the end has no effect."""
        self.attach(stream).cancel()

    def wait(self, stream: str, *, timeout_s: float | None = None) -> StreamStatus:
        """Wait until an answer has ended, and return it. Raises :class:`TimeoutError`."""
        return self.attach(stream).wait(timeout_s=timeout_s)

    def close(self) -> None:
        self._calls.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Stream(Answer):
    """One answer. Iterate over it for its events; its parts grow with them.

    The iteration ends after ``Done``. If you leave it earlier, its connection is closed, and a new iteration
    continues after the last event.
    """

    def __init__(self, calls: Calls, address: StreamAddress, last_event_id: str = "") -> None:
        super().__init__(address, Reading(calls.retry_timeout_s, checked_header("last_event_id", last_event_id)))
        self._calls = calls

    def __iter__(self) -> Iterator[Event]:
        return self._events(None)

    def cancel(self) -> None:
        """Stop the answer at the provider. The stream then ends with ``Done``."""
        self._calls.call_first_allowed(_requests.cancel_requests(self._calls.gateway, self._address))

    def status(self) -> StreamStatus:
        """Return the answer so far, as the gateway has it."""
        return cast(StreamStatus, self._calls.call(_requests.status_request(self._calls.gateway, self._address)))

    def wait(self, *, timeout_s: float | None = None) -> StreamStatus:
        """Read to the end, and return the whole answer. Raises :class:`TimeoutError`.

        The time is checked with each event and each heartbeat, which comes every 15 s.
        """
        for _ in self._events(None if timeout_s is None else time.monotonic() + timeout_s):
            pass
        return self.status()

    def _events(self, ends_at: float | None) -> Iterator[Event]:
        reading = self._reading
        while not reading.has_ended:
            try:
                yield from self._connection(ends_at)
                failure = ended_early()
            except httpx2.RequestError as error:
                failure = unreachable(error)
            except HeadraceError as error:
                failure = error
            if reading.is_complete and not reading.has_ended:
                yield self._take(reading.end_without_events(_requests.done_of(self.status())))
            if not reading.has_ended:
                self._calls.pause(reading.retries.next(failure), _left_s(ends_at))
                _check(ends_at)

    def _connection(self, ends_at: float | None) -> Iterator[Event]:
        """Yield the events of one connection. Raises if it is refused or breaks."""
        reading = self._reading
        request = _requests.read_request(self._calls.gateway, self._address, reading.headers())
        with self._calls.open(request, _left_s(ends_at)) as response:
            if not reading.is_stream(response.status_code, response.headers):
                reading.refuse(response.status_code, response.headers, response.read())
                return
            for received in response.iter_bytes():
                for event in reading.feed(received):
                    yield self._take(event)
                if reading.has_ended:
                    return
                _check(ends_at)


def _left_s(ends_at: float | None) -> float:
    return float("inf") if ends_at is None else max(0.0, ends_at - time.monotonic())


def _check(ends_at: float | None) -> None:
    if _left_s(ends_at) <= 0:
        raise TimeoutError("timeout_s: the answer has not ended in time; it continues at the gateway")

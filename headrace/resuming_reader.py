"""Reads one answer to its end, over as many connections as needed.

The request has an Idempotency-Key. Once the stream's id is known, reading resumes after the last handled event. A
broken connection or a restarted gateway therefore neither loses nor repeats a token.
"""

import json
import secrets
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import httpx2

from headrace.backoff import Backoff
from headrace.printer import AnswerPrinter, note
from headrace.sse_decoder import ServerSentEvent, SseDecoder
from shared.printable import one_line

CANCEL_TIMEOUT_S = 5
LONGEST_GRACE_S = 86_400.0


class ChatFailed(Exception):
    """No answer is possible; the message has the reason."""


class _Unavailable(Exception):
    """A retryable failure. ``after_s`` is the server's Retry-After."""

    def __init__(self, problem: str, after_s: float | None = None) -> None:
        super().__init__(problem)
        self.after_s = after_s


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question and its gateway. ``url`` has no slash at its end; ``response_format`` is None for text."""

    url: str
    prompt: str
    model: str
    provider: str | None
    retry_timeout_s: float
    key: str | None = None
    response_format: dict[str, object] | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def body(self) -> dict[str, object]:
        body: dict[str, object] = {
            "model": self.model,
            "messages": [{"role": "user", "content": self.prompt}],
            "grace_s": min(self.retry_timeout_s, LONGEST_GRACE_S),  # the stream survives for as long as we retry
        }
        optional = {"provider": self.provider, "response_format": self.response_format}
        return body | {name: value for name, value in optional.items() if value}


class ResumingReader:
    """Reader of one answer that prints it as it arrives."""

    def __init__(self, question: Question, client: httpx2.AsyncClient) -> None:
        self._question = question
        self._client = client
        self._key = secrets.token_hex(16)
        self._stream_id = ""
        self._last_event_id = ""
        self._printer = AnswerPrinter(as_json=question.response_format is not None)
        self._exit_code: int | None = None
        self._backoff = Backoff(question.retry_timeout_s)

    async def read(self) -> int:
        """Read to the end of the answer. Return the exit code."""
        while self._exit_code is None:
            try:
                await self._read_connection()
            except _Unavailable as error:
                await self._wait(str(error), error.after_s)
            except httpx2.TransportError as error:
                await self._wait(_text_of(error))
            else:
                if self._exit_code is None:
                    await self._wait("the connection ended early")
        return self._exit_code

    async def cancel(self) -> None:
        """Cancel the stream. If the gateway is unreachable, the stream ends after its grace period."""
        text = "cancelled"
        if self._stream_id:
            url = f"{self._question.url}/chat/{self._stream_id}/cancel"
            try:
                answer = await self._client.post(url, timeout=CANCEL_TIMEOUT_S)
                problem = "" if answer.is_success else f"HTTP {answer.status_code}"
            except httpx2.TransportError as error:
                problem = _text_of(error)
            text += f" here, but not at the gateway ({problem}); it stops after the grace period" if problem else ""
        note(text)

    async def _wait(self, problem: str, after_s: float | None = None) -> None:
        if self._backoff.is_fresh:
            note(f"{problem}; retrying")
        await self._backoff.wait(problem, after_s)

    def _connect(self) -> AbstractAsyncContextManager[httpx2.Response]:
        headers = {"Accept": "text/event-stream"}
        if not self._stream_id:
            headers["Idempotency-Key"] = self._key
            url = f"{self._question.url}/chat/stream"
            return self._client.stream("POST", url, json=self._question.body(), headers=headers)
        if self._last_event_id:
            headers["Last-Event-ID"] = self._last_event_id
        return self._client.stream("GET", f"{self._question.url}/chat/stream/{self._stream_id}", headers=headers)

    async def _read_connection(self) -> None:
        """Read until the end of the connection or of the answer. Raises if the response is not an answer."""
        async with self._connect() as response:
            if response.status_code == 204:  # we have the whole answer
                self._exit_code = 0
                return
            if response.status_code != 200:
                await response.aread()
                raise _refusal(response)
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise ChatFailed(f"{self._question.url}: not a Headrace gateway; check --url")
            self._stream_id = response.headers.get("x-stream-id", self._stream_id)
            decoder = SseDecoder(self._last_event_id)
            async for received in response.aiter_bytes():
                for event in decoder.feed(received):
                    self._backoff.reset()
                    self._take(event)
                    self._last_event_id = event.last_event_id
                if decoder.retry_ms is not None:
                    self._backoff.delay_s = decoder.retry_ms / 1000
                if self._exit_code is not None:
                    return

    def _take(self, event: ServerSentEvent) -> None:
        data = json.loads(event.data)
        match event.name:
            case "error":
                self._printer.finish()
                note(f"error: {one_line(data['code'])}: {one_line(data['message'])}")
                self._exit_code = 1
            case "done":
                self._printer.finish()
                code = _ending(data["finish_reason"], data.get("reason"))
                self._exit_code = self._exit_code or code or (0 if self._printer.is_complete else 1)
            case "start":
                self._stream_id = data["stream_id"]
                self._printer.take(event.name, data)
            case _:
                self._printer.take(event.name, data)


def _ending(finish_reason: str, reason: str | None) -> int:
    if reason == "empty_answer":
        note("the answer is empty")
    elif finish_reason not in {"stop", "tool_calls"}:
        note(one_line(f"the answer ended early: {finish_reason}" + (f" ({reason})" if reason else "")))
    return 1 if finish_reason in {"cancelled", "error"} else 0


def _refusal(response: httpx2.Response) -> Exception:
    try:
        error = response.json()["error"]
        problem = one_line(f"{error['code']}: {error['message']}")
        retryable = bool(error["retryable"])
    except (ValueError, KeyError, TypeError):  # a proxy's page, not a gateway's response
        problem, retryable = f"HTTP {response.status_code}", response.status_code in {429, 502, 503, 504}
    if not retryable:
        return ChatFailed(problem)
    after = response.headers.get("retry-after", "")
    return _Unavailable(problem, float(after) if after.isdecimal() else None)


def _text_of(error: httpx2.TransportError) -> str:
    return str(error) or type(error).__name__

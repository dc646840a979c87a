"""One answer, read to its end over as many connections as it takes.

It is asked for with an Idempotency-Key and, as soon as its stream is known, read on from the last event that was
taken; so neither a cut connection nor a gateway that restarts loses or repeats a token.
"""

import json
import secrets
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import httpx2

from headrace.backoff import Backoff
from headrace.printer import AnswerPrinter, note
from headrace.sse_decoder import ServerSentEvent, SseDecoder

CANCEL_WITHIN_S = 5
LONGEST_GRACE_S = 86_400.0


class ChatFailed(Exception):
    """There will be no answer; the message says why."""


class _Unavailable(Exception):
    """This try failed, another may not. ``after_s`` is the server's wish."""

    def __init__(self, problem: str, after_s: float | None = None) -> None:
        super().__init__(problem)
        self.after_s = after_s


@dataclass(frozen=True, kw_only=True)
class Question:
    """``url`` is the gateway's, without a slash at the end; ``key`` is shown to it. ``response_format`` is None for
    text."""

    url: str
    prompt: str
    model: str
    provider: str | None
    patience_s: float
    key: str | None = None
    response_format: dict[str, object] | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def body(self) -> dict[str, object]:
        asked: dict[str, object] = {
            "model": self.model,
            "messages": [{"role": "user", "content": self.prompt}],
            "grace_s": min(self.patience_s, LONGEST_GRACE_S),  # the answer waits for us as long as we for it
        }
        optional = {"provider": self.provider, "response_format": self.response_format}
        return asked | {name: value for name, value in optional.items() if value}


class Answer:
    """Prints the answer while it comes."""

    def __init__(self, question: Question, client: httpx2.AsyncClient) -> None:
        self._question = question
        self._client = client
        self._key = secrets.token_hex(16)
        self._stream_id = ""
        self._last_event_id = ""
        self._pieces = AnswerPrinter(as_json=question.response_format is not None)
        self._exit_code: int | None = None
        self._patience = Backoff(question.patience_s)

    async def read(self) -> int:
        """To the end of the answer, over as many connections as it takes."""
        while self._exit_code is None:
            try:
                await self._read_connection()
            except _Unavailable as error:
                await self._wait(str(error), error.after_s)
            except httpx2.TransportError as error:
                await self._wait(_in_words(error))
            else:
                if self._exit_code is None:
                    await self._wait("the connection ended early")
        return self._exit_code

    async def cancel(self) -> None:
        """Tell the gateway, if it is there to be told; without that it stops after the grace."""
        told = "cancelled"
        if self._stream_id:
            url = f"{self._question.url}/chat/{self._stream_id}/cancel"
            try:
                answer = await self._client.post(url, timeout=CANCEL_WITHIN_S)
                problem = "" if answer.is_success else f"HTTP {answer.status_code}"
            except httpx2.TransportError as error:
                problem = _in_words(error)
            told += f" here; the gateway could not be told ({problem}) and stops by itself" if problem else ""
        note(told)

    async def _wait(self, problem: str, after_s: float | None = None) -> None:
        if self._patience.is_fresh:
            note(f"{problem}; trying again")
        await self._patience.wait(problem, after_s)

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
        """Until the connection ends or the answer does. Raises for whatever is not an answer."""
        async with self._connect() as response:
            if response.status_code == 204:  # we have it all
                self._exit_code = 0
                return
            if response.status_code != 200:
                await response.aread()
                raise _refusal(response)
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise ChatFailed(f"{self._question.url} does not answer like a Headrace gateway")
            self._stream_id = response.headers.get("x-stream-id", self._stream_id)
            decoder = SseDecoder(self._last_event_id)
            async for received in response.aiter_bytes():
                for event in decoder.feed(received):
                    self._patience.renew()
                    self._take(event)
                    self._last_event_id = event.last_event_id
                if decoder.retry_ms is not None:
                    self._patience.delay_s = decoder.retry_ms / 1000
                if self._exit_code is not None:
                    return

    def _take(self, event: ServerSentEvent) -> None:
        data = json.loads(event.data)
        match event.name:
            case "error":
                self._pieces.finish()
                note(f"error: {data['code']}: {data['message']}")
                self._exit_code = 1
            case "done":
                self._pieces.finish()
                code = _ending(data["finish_reason"], data.get("reason"))
                self._exit_code = self._exit_code or code or (0 if self._pieces.is_whole else 1)
            case "start":
                self._stream_id = data["stream_id"]
                self._pieces.take(event.name, data)
            case _:
                self._pieces.take(event.name, data)


def _ending(finish_reason: str, reason: str | None) -> int:
    if reason == "empty_answer":
        note("the answer is empty")
    elif finish_reason not in {"stop", "tool_calls"}:
        note(f"the answer ended early: {finish_reason}" + (f" ({reason})" if reason else ""))
    return 1 if finish_reason in {"cancelled", "error"} else 0


def _refusal(response: httpx2.Response) -> Exception:
    try:
        error = response.json()["error"]
        problem, retryable = f"{error['code']}: {error['message']}", bool(error["retryable"])
    except (ValueError, KeyError, TypeError):  # a proxy's page, not the gateway's answer
        problem, retryable = f"HTTP {response.status_code}", response.status_code in {429, 502, 503, 504}
    if not retryable:
        return ChatFailed(problem)
    after = response.headers.get("retry-after", "")
    return _Unavailable(problem, float(after) if after.isdecimal() else None)


def _in_words(error: httpx2.TransportError) -> str:
    return str(error) or type(error).__name__

"""The command ``headrace chat``: one question, its answer on stdout, resumed over broken connections.

The client library has the rules of resuming. A broken connection or a restarted gateway neither loses nor repeats a
token.
"""

import asyncio
import os
import signal
import sys
from dataclasses import dataclass

from headrace.printer import AnswerPrinter, note
from headrace.unreachable import OTHER_ADDRESS, cannot_connect, reason_of
from headrace_client import AsyncClient, AsyncStream, Done, Error, Event, HeadraceError, Retry
from shared.printable import one_line

CANCEL_TIMEOUT_S = 5
LONGEST_GRACE_S = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question and its gateway. ``response_format`` is None for text."""

    url: str
    prompt: str
    model: str
    provider: str | None
    retry_timeout_s: float
    key: str | None = None
    response_format: dict[str, object] | None = None


async def chat(question: Question) -> int:
    """Print the answer and return the exit code: 0, 1 after an error, 130 after Ctrl-C."""
    retries = _Retries(question)
    async with AsyncClient(
        question.url, key=question.key, retry_timeout_s=question.retry_timeout_s, on_retry=retries.note
    ) as client:
        answer = _PrintedAnswer(question, client, retries)
        reading = asyncio.ensure_future(answer.read())
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, reading.cancel)
        try:
            return await reading
        except HeadraceError as error:
            remedy = f"; {OTHER_ADDRESS}" if cannot_connect(error) else ""
            note(f"error: {_text_of(error, question.url)}{remedy}")
            return 1
        except asyncio.CancelledError:
            exit_code = 128 + signal.SIGINT
        except BrokenPipeError:  # the reader of our output has exited
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            exit_code = 128 + signal.SIGPIPE
        loop.remove_signal_handler(signal.SIGINT)  # a second Ctrl-C does not wait for the gateway
        await answer.cancel()
        return exit_code


class _PrintedAnswer:
    """One answer that is printed as it arrives."""

    def __init__(self, question: Question, client: AsyncClient, retries: "_Retries") -> None:
        self._question = question
        self._client = client
        self._retries = retries
        self._printer = AnswerPrinter(as_json=question.response_format is not None)
        self._stream: AsyncStream | None = None
        self._exit_code = 0

    async def read(self) -> int:
        """Read to the end of the answer. Return the exit code."""
        question = self._question
        self._stream = await self._client.start(
            [{"role": "user", "content": question.prompt}],
            model=question.model,
            provider=question.provider,
            response_format=question.response_format,
            on_disconnect="cancel",
            grace_s=min(question.retry_timeout_s, LONGEST_GRACE_S),  # the stream survives for as long as we retry
        )
        self._retries.has_connected = True
        async for event in self._stream:
            self._take(event)
        return self._exit_code

    async def cancel(self) -> None:
        """Cancel the stream. If the gateway is unreachable, the stream ends after its grace period."""
        problem = ""
        if self._stream is not None:
            try:
                async with asyncio.timeout(CANCEL_TIMEOUT_S):
                    await self._stream.cancel()
            except HeadraceError as error:
                problem = _text_of(error, self._question.url)
            except TimeoutError:
                problem = "no response"
        note(
            f"cancelled here, but not at the gateway ({problem}); it stops after the grace period"
            if problem
            else "cancelled"
        )

    def _take(self, event: Event) -> None:
        match event:
            case Error():
                self._printer.finish()
                note(f"error: {one_line(event.code)}: {one_line(event.message)}")
                self._exit_code = 1
            case Done():
                self._printer.finish()
                if self._exit_code == 0:
                    self._exit_code = _ending(event.finish_reason, event.reason) or int(not self._printer.is_complete)
            case _:
                self._printer.take(event)


def _ending(finish_reason: str, reason: str | None) -> int:
    if reason == "empty_answer":
        note("the answer is empty")
    elif finish_reason not in {"stop", "tool_calls"}:
        note(one_line(f"the answer ended early: {finish_reason}" + (f" ({reason})" if reason else "")))
    return 1 if finish_reason in {"cancelled", "error"} else 0


class _Retries:
    """Decides which failures the client retries: the first connection is tried once. ``has_connected``: the gateway
    has answered."""

    def __init__(self, question: Question) -> None:
        self.has_connected = False
        self._url = question.url
        self._timeout_s = question.retry_timeout_s

    def note(self, retry: Retry) -> None:
        """Print the first failure of a series. Raises it if no connection was ever possible."""
        if not self.has_connected and cannot_connect(retry.error):
            raise retry.error
        self.has_connected = True
        if retry.attempt == 1:
            note(f"{_text_of(retry.error, self._url)}; retrying for up to {self._timeout_s:g} s")


def _text_of(error: HeadraceError, url: str) -> str:
    if error.code == "not_headrace":
        return f"{url}: not a Headrace gateway; check --url or HEADRACE_URL"
    if error.code == "unreachable":
        given_up = error.message.partition(":")[0] + ": " if error.message.startswith("gave up") else ""
        return one_line(f"{url}: {given_up}{reason_of(error.__context__ or error)}")
    if error.code.startswith("http_"):
        return one_line(f"{url}: {error.message}")
    remedy = "; check HEADRACE_API_KEY or --key" if error.code == "unauthenticated" else ""
    return one_line(f"{error.code}: {error.message}{remedy}")

"""One answer: its events are checked one by one, and its text against the stored answer."""

import json
import random
import ssl
import time
from dataclasses import dataclass, field
from typing import Any, Final

from bench.own_system.target import Broken, Target, exchange
from headrace_client._sse import Frame, SseDecoder

_MOST_RESUMES: Final = 5
#: With ``--cut``, a connection is cut after one of the first so many events.
_CUT_WITHIN: Final = 50


@dataclass(slots=True)
class Answer:
    """Result of one client. ``error``: code of the failure, empty for success. ``gaps_s``: times between events of
    text. ``lost``: events that were left out; ``altered``: the text differs from the stored one."""

    began: float
    error: str = ""
    first_s: float | None = None
    whole_s: float = 0.0
    gaps_s: list[float] = field(default_factory=list)
    tokens: int = 0
    resumes: int = 0
    resets: int = 0
    lost: int = 0
    twice: int = 0
    altered: bool = False
    stream_id: str = ""
    text: str = ""


class _Reader:
    """State of one answer over all its connections. ``cut_after``: events until a deliberate cut; None for never."""

    def __init__(self, answer: Answer, cut_after: int | None) -> None:
        self.answer = answer
        self.cursor = ""
        self.is_done = False
        self.cut_after = cut_after
        self._last_at = 0.0
        self._events = 0

    def take(self, frame: Frame) -> bool:
        """Count one event. Return True if the connection shall be cut now."""
        now, data = time.monotonic(), _object(frame.data)
        if frame.name == "start" and data.get("reset"):
            self._reset()
        if frame.id is not None:
            self._count(frame.id)
        if frame.name == "token":
            self._time(now)
            self.answer.text += data.get("token", "")
            self.answer.tokens += data.get("n", 1)
        elif frame.name == "error":
            self.answer.error = f"in the stream: {data.get('code', 'unknown')}"
        elif frame.name == "done":
            self.is_done = True
            self.answer.whole_s = now - self.answer.began
        if self.cut_after is not None and frame.id is not None and not self.is_done:
            self._events += 1
            if self._events >= self.cut_after:
                self.cut_after = None
                return True
        return False

    def _count(self, event_id: str) -> None:
        """Compare the number of an event with the one before. Their first part changes where a worker took over."""
        if self.cursor:
            seq, before = int(event_id.partition("-")[2]), int(self.cursor.partition("-")[2])
            self.answer.lost += max(0, seq - before - 1)
            if seq <= before:
                self.answer.twice += 1
                return
        self.cursor = event_id

    def _time(self, now: float) -> None:
        if self.answer.first_s is None:
            self.answer.first_s = now - self.answer.began
        else:
            self.answer.gaps_s.append(now - self._last_at)
        self._last_at = now

    def _reset(self) -> None:
        self.answer.resets += 1
        self.answer.text, self.cursor = "", ""
        self.answer.tokens = 0


async def ask(target: Target, trust: ssl.SSLContext | None, *, number: int, cut: bool, check: bool) -> Answer:
    """Request one answer, read it to its end, and compare it with the stored one. Resumes broken connections."""
    answer = Answer(time.monotonic())
    reader = _Reader(answer, random.randint(1, _CUT_WITHIN) if cut else None)
    body = json.dumps(target.body | {"metadata": {"load_test": str(number)}}).encode()
    request = target.request("POST", "/chat/stream", {"Accept": "text/event-stream"}, body)
    while True:
        try:
            await _read(target, trust, request, reader)
        except Broken as error:
            answer.error = str(error)
        if reader.is_done or not answer.stream_id or answer.error.startswith("HTTP"):
            break
        if answer.resumes >= _MOST_RESUMES:
            answer.error = answer.error or "broken off"
            break
        answer.error, answer.resumes = "", answer.resumes + 1
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": reader.cursor} if reader.cursor else {})}
        request = target.request("GET", f"/chat/stream/{answer.stream_id}", headers)
    if reader.is_done and check:
        await _compare(target, trust, answer)
    return answer


async def _read(target: Target, trust: ssl.SSLContext | None, request: bytes, reader: _Reader) -> None:
    """Read one response up to its end, or up to a deliberate cut. Raises :class:`Broken`."""
    decoder = SseDecoder()
    async with exchange(target, trust, request) as found:
        body = await found.read()
        if found.response.status == 204:
            reader.is_done = True
            return
        if found.response.status != 200:
            reader.answer.error = _refusal(found.response.status, body)
            return
        reader.answer.stream_id = found.response.stream_id or reader.answer.stream_id
        while body:
            for frame in decoder.feed(body):
                if reader.take(frame):
                    return
            body = await found.read()


async def _compare(target: Target, trust: ssl.SSLContext | None, answer: Answer) -> None:
    try:
        request = target.request("GET", f"/chat/{answer.stream_id}", {"Accept": "application/json"})
        async with exchange(target, trust, request) as found:
            stored = await found.json()
    except Broken as error:
        answer.error = answer.error or f"stored answer: {error}"
        return
    if found.response.status != 200 or not isinstance(stored, dict):
        answer.error = answer.error or f"stored answer: HTTP {found.response.status}"
        return
    answer.altered = stored.get("text") != answer.text


def _refusal(status: int, body: bytes) -> str:
    error = _object(body.decode(errors="replace")).get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return f"HTTP {status}" + (f" {code}" if isinstance(code, str) else "")


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}

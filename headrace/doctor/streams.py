"""Streams answers through a URL, and names the faults of proxies."""

import asyncio
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from headrace.doctor import remedies
from headrace.doctor.findings import Finding, note, ok, wrong
from headrace.doctor.gateway_calls import GatewayCalls, Unreachable
from headrace.doctor.gateways import DEMO
from headrace.doctor.judgements import OF_THE_KEY, cached_post, delivery, head, no_stream
from headrace.doctor.pace import Answer, Pace, pace_of
from headrace.doctor.stream_reading import Reading, read_stream

_WORDS: Final = 90
_MOST_WORDS: Final = 20_000
_WANTED_S: Final = 2.0
#: Long enough for a paid model, which may think first.
_WITHIN_S: Final = 120.0
#: Signs of a fault, or of a machine that stood still.
_HELD_BACK: Final = frozenset({Pace.AT_ONCE, Pace.BLOCKS})
_OURS: Final = {"source": "headrace doctor"}


class StreamRefused(Exception):
    """No answer could be started; ``finding`` has the reason."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.detail)
        self.finding = finding


class Streams:
    """Answers of one model through ``gateway``. ``direct``: a gateway without the proxy, if there is one."""

    def __init__(self, gateway: GatewayCalls, direct: GatewayCalls | None, model: str) -> None:
        self._gateway = gateway
        self._direct = direct
        self._model = model
        self._name = f"stream {gateway.shown}"
        self._stream_ids: list[str] = []

    async def examine(self) -> list[Finding]:
        """Stream, resume, and judge the responses. The streams are deleted afterwards."""
        try:
            return await self._examine()
        finally:
            for stream_id in self._stream_ids:
                with suppress(Unreachable):  # a key may lack the scope; retention ends them too
                    await self._gateway.call("DELETE", f"/chat/{stream_id}")

    async def _examine(self) -> list[Finding]:
        """Return the findings. A demo costs nothing, so it is asked more often."""
        try:
            answer = await self._answer()
        except StreamRefused as error:
            return [error.finding]
        if (problem := no_stream(answer.read, self._name)) is not None:
            return [problem]
        findings = [delivery(answer, self._name), *head(answer.read, self._name)]
        again = await self._resumed(answer.read)
        findings += again
        if self._model == DEMO:
            findings += await self._posts()
        return findings

    async def _answer(self) -> Answer:
        """Return an answer that can be judged. An apparent fault must be seen twice, if that costs nothing."""
        answer = await self._read(_WORDS)
        if self._model != DEMO:
            return answer
        if answer.pace == Pace.UNKNOWN and answer.read.is_done:
            words = min(_MOST_WORDS, round(_WORDS * _WANTED_S / max(answer.took_s, 0.01)))
            return await self._read(words) if words > _WORDS else answer
        return await self._read(_WORDS) if answer.pace in _HELD_BACK else answer

    async def _read(self, words: int) -> Answer:
        """Start an answer and read it through the URL and directly at the same time. Raises
        :class:`StreamRefused`."""
        try:
            reply = await self._gateway.call(
                "POST", "/chat", json=question(self._model, f"Count to {words}, {words} words")
            )
        except Unreachable as error:
            raise StreamRefused(wrong("stream", self._name, f"POST /chat: {error}")) from None
        if reply.cache:
            raise StreamRefused(cached_post(self._name))
        match reply.body:
            case {"stream_id": str(stream_id)} if reply.status == 202:
                pass
            case _ if reply.error and reply.status in OF_THE_KEY:
                raise StreamRefused(note("stream", self._name, f"not tested: POST /chat: {reply.text}"))
            case _:
                raise StreamRefused(wrong("stream", self._name, f"POST /chat: {reply.text}"))
        self._stream_ids.append(stream_id)
        path = f"/chat/stream/{stream_id}"
        readings = [
            read_stream(each, "GET", path, within_s=_WITHIN_S) for each in (self._gateway, self._direct) if each
        ]
        read, *direct = await asyncio.gather(*readings)
        beside = direct[0] if direct and direct[0].is_done else None
        return Answer(read, beside, await self._time_of(stream_id, beside))

    async def _time_of(self, stream_id: str, direct: Reading | None) -> float:
        if direct is not None:
            return direct.span_s
        try:
            reply = await self._gateway.call("GET", f"/chat/{stream_id}")
        except Unreachable:
            return 0.0
        match reply.body:
            case {"started_at": str(started), "ended_at": str(ended)}:
                return (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds()
        return 0.0

    async def _resumed(self, whole: Reading) -> list[Finding]:
        """Read the ended answer again after an event in its middle."""
        arrivals = whole.arrivals
        if len(arrivals) < 3:
            return [note("resume", self._name, "not tested: the answer is too short")]
        middle = len(arrivals) // 2
        headers = {"Last-Event-ID": arrivals[middle - 1].id}
        again = await read_stream(self._gateway, "GET", f"/chat/stream/{whole.stream_id}", headers=headers)
        if again.cache:
            detail = f"a second reader got the first one's response from a cache ({again.cache}): answers are private"
            return [wrong("cached_response", self._name, detail, remedies.CACHE)]
        first = again.arrivals[0].id if again.arrivals else ""
        if first == arrivals[0].id:
            detail = (
                "the answer began again after Last-Event-ID: a proxy removes that header, so a resume repeats tokens"
            )
            return [wrong("last_event_id", self._name, detail, remedies.LAST_EVENT_ID)]
        if first != arrivals[middle].id:
            seen = again.problem or (f"HTTP {again.status}" if again.status != 200 else "another place")
            return [wrong("resume", self._name, f"a resume after {arrivals[middle - 1].id} failed: {seen}")]
        return [ok("resume", self._name, "goes on after Last-Event-ID, nothing repeated")]

    async def _posts(self) -> list[Finding]:
        """Stream two answers by POST, which a cache must not take for one."""
        first = await self._post(_WORDS // 3)
        if not first.is_stream:
            cached = cached_post(self._name) if first.cache else no_stream(first, self._name)
            return [cached or wrong("stream", self._name, "POST /chat/stream: no stream")]
        second = await self._post(1)
        if second.cache or second.stream_id == first.stream_id:
            return [cached_post(self._name)]
        if await self._came_at_once(first) and await self._came_at_once(await self._post(_WORDS // 3)):
            detail = "POST /chat/stream arrived at once, at its end: a proxy buffers it"
            return [wrong("buffering", self._name, detail, remedies.BUFFERING)]
        return [ok("post", self._name, "POST /chat/stream streams, and is not cached")]

    async def _came_at_once(self, reading: Reading) -> bool:
        return pace_of(reading, await self._time_of(reading.stream_id, None), None) == Pace.AT_ONCE

    async def _post(self, words: int) -> Reading:
        body = question(self._model, f"{words} words")
        reading = await read_stream(self._gateway, "POST", "/chat/stream", body=body)
        if reading.stream_id:
            self._stream_ids.append(reading.stream_id)
        return reading


def question(model: str, text: str, **fields: Any) -> dict[str, Any]:
    """Return the body of a request. The metadata is for receivers of webhooks."""
    return {"model": model, "messages": [{"role": "user", "content": text}], "metadata": _OURS, **fields}

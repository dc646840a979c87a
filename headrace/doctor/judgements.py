"""Findings about one streamed response: its status, its head, and the arrival of its tokens."""

from collections.abc import Iterator
from typing import Final

from headrace.doctor import remedies
from headrace.doctor.findings import Finding, note, ok, wrong
from headrace.doctor.pace import Answer, Pace
from headrace.doctor.stream_reading import Reading

#: Statuses of the gateway that are about the key's scopes and limits.
OF_THE_KEY: Final = frozenset({403, 429})


def cached_post(name: str) -> Finding:
    detail = "a POST got the answer to an earlier one: a proxy caches POST, so users get each other's answers"
    return wrong("cached_post", name, detail, remedies.CACHE)


def no_stream(reading: Reading, name: str) -> Finding | None:
    """Return the finding for a response that is no stream, or broke off."""
    if reading.is_stream:
        return None if reading.is_done else _cut(reading, name)
    kind = reading.headers.get("content-type", "none")
    if not reading.status:
        return wrong("stream", name, f"no response: {reading.problem}")
    if reading.status in OF_THE_KEY and '"code"' in reading.page:
        return note("stream", name, f"not tested: HTTP {reading.status}; the key needs the scopes chat and read")
    if reading.status != 200:
        return wrong("stream", name, f"HTTP {reading.status} ({kind}) instead of a stream")
    return wrong("stream", name, f"Content-Type is {kind} instead of text/event-stream: a proxy changes it")


def _cut(reading: Reading, name: str) -> Finding:
    if reading.was_too_long:
        return note("stream", name, f"not judged: {reading.problem}; is a worker free?")
    seen = f"ended after {reading.ended_s:.1f} s without the event done"
    why = reading.problem or "as if it were complete"
    return wrong("stream", name, f"{seen}: {why}; a proxy or a timeout cuts it")


def delivery(answer: Answer, name: str) -> Finding:
    read, direct = answer.read, answer.direct
    seen = f"{len(read.tokens)} events in {read.moments} pieces over {read.span_s:.1f} s"
    beside = f"; directly in {direct.moments} over {direct.span_s:.1f} s" if direct is not None else ""
    match answer.pace:
        case Pace.SINGLE:
            return ok("buffering", name, f"tokens arrive one by one: {seen}{beside}")
        case Pace.AT_ONCE:
            detail = (
                f"buffered: all tokens arrived at once, at the end ({seen}; it took {answer.took_s:.1f} s{beside})"
            )
            return wrong("buffering", name, f"{detail}; a proxy collects the response", remedies.BUFFERING)
        case Pace.BLOCKS:
            detail = f"buffered in blocks: {seen}, the longest gap {read.longest_gap_s:.1f} s{beside}"
            return wrong("buffering", name, f"{detail}; a proxy fills its buffers first", remedies.BUFFERING)
    return note(
        "buffering", name, f"cannot be judged: {seen}{beside}; the answer was too short, or the machine is busy"
    )


def head(reading: Reading, name: str) -> Iterator[Finding]:
    """Judge the head of a streamed response."""
    encoding = reading.headers.get("content-encoding", "identity")
    if encoding != "identity":
        detail = f"Content-Encoding is {encoding}: a proxy compresses the stream, which holds tokens back"
        yield wrong("compression", name, f"{detail} and costs memory for each reader", remedies.COMPRESSION)
    if reading.http_version == "HTTP/1.0":
        detail = "the response is HTTP/1.0: a broken connection looks like the end of the answer"
        yield wrong("http_1_0", name, detail, remedies.HTTP_10)
    elif "content-length" in reading.headers:
        detail = "Content-Length is set: a proxy has collected the whole answer first"
        yield wrong("buffering", name, detail, remedies.BUFFERING)
    elif reading.http_version == "HTTP/1.1" and "chunked" not in reading.headers.get("transfer-encoding", ""):
        detail = "the response is not chunked: a broken connection looks like the end of the answer"
        yield wrong("chunked", name, detail, remedies.CHUNKED)

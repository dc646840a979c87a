"""Each rule for reading a stream, in each client library.

That a test fails for each rule which is taken out was tried once, see docs/adr/0022-client-libraries.md.
"""

import email.utils
import time
from typing import Any, Final

import pytest

from headrace_client import AsyncClient
from tests.cli import accepted, done, event, refusal, scripted, start, stream, token
from tests.clients.outcomes import LIBRARIES, decoded, delays, reading, run

each_library = pytest.mark.parametrize("library", LIBRARIES)
each_language = pytest.mark.parametrize("library", ["python", "javascript"])
PAGE: Final = b"HTTP/1.1 502 Bad\r\nconnection: close\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi"


@each_library
async def test_the_cursor_is_that_of_the_last_event_with_an_id(library: str) -> None:
    """A `queued` has none. Nothing after `done` is part of the answer."""
    begun = stream(start(), token("3-2", "a"), event("queued", stream_id="s1", position=None), whole=False)
    rest = stream(token("3-3", "b"), done("3-4") + token("3-5", "never"))
    async with scripted(begun, rest) as gateway:
        outcome = await reading(library, gateway.url)
    assert [request.headers.get("last-event-id") for request in gateway.requests] == [None, "3-2"]
    assert (outcome.text, outcome.ids) == ("ab", ["3-1", "3-2", "3-3", "3-4"])
    assert outcome.types == ["start", "token", "queued", "token", "done"]


@each_library
async def test_every_part_is_collected_and_a_reset_empties_it(library: str) -> None:
    piece = event("tool_call", "3-5", index=0, id="c", name="f", arguments="{", complete=False, n=1)
    call = event("tool_call", "3-6", index=0, id="c", name="f", arguments="{}", complete=True, n=0)
    parts = [
        event("reasoning", "3-3", text="why", index=0, n=1),
        event("refusal", "3-4", text="no", index=0, n=1),
        *(token("3-2", "x"), piece, call),
        event("json", "3-7", path=["a"], value=1, complete=True),
        event("json", "3-8", path=[], value={"a": 1}, complete=True),
        event("json", "3-9", path=["b"], value=2, complete=True),
        event("error", "3-10", code="worker_lost", message="m", retryable=False),
    ]
    async with scripted(stream(start(), *parts, done("3-11"))) as gateway:
        whole = await reading(library, gateway.url)
    function = {"name": "f", "arguments": "{}"}
    assert (whole.text, whole.reasoning, whole.refusal, whole.error) == ("x", "why", "no", "worker_lost")
    assert whole.calls == [{"id": "c", "type": "function", "function": function}]
    assert whole.json == {"a": 1}
    again = stream(start("9-1", reset=True), piece.replace(b"3-5", b"9-2"), done("9-3"))
    async with scripted(stream(start(), *parts, whole=False), again) as gateway:
        outcome = await reading(library, gateway.url)
    assert (outcome.text, outcome.reasoning, outcome.refusal, outcome.error) == ("", "", "", None)
    assert (outcome.calls, outcome.json) == ([], None)
    assert outcome.types[-3:] == ["reset", "tool_call", "done"]


@each_library
async def test_an_answer_that_was_read_already_ends_with_done(library: str) -> None:
    status = b'{"finish_reason": "length", "usage": null}'
    known = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(status), status)
    gone = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"
    async with scripted(gone, known) as gateway:
        outcome = await reading(library, gateway.url, last_event_id="3-9")
    assert (outcome.types, outcome.raised, outcome.attempts) == (["done"], None, [])
    assert outcome.finish_reason == "length"


@each_library
async def test_progress_begins_the_retries_anew(library: str) -> None:
    """An event is progress, and so is a heartbeat: it shows that the gateway reads the stream."""
    silent = stream(whole=False)
    answers = [stream(start(), whole=False)]
    answers += [stream(token(f"3-{at}", "x"), whole=False) for at in (2, 3)]
    answers += [stream(b": ping\n", whole=False), stream(b": ping\n", whole=False), silent, PAGE]
    async with scripted(*answers, stream(token("3-4", "x"), done("3-5"))) as gateway:
        outcome = await reading(library, gateway.url)
    assert (outcome.text, outcome.attempts) == ("xxx", [1, 1, 1, 1, 1, 2, 3])


@each_library
async def test_an_event_that_is_not_of_the_protocol_is_final(library: str) -> None:
    for data in (b"5", b"{", b""):
        async with scripted(stream(start(), b"event: token\nid: 3-2\ndata: %b\n\n" % data)) as gateway:
            outcome = await reading(library, gateway.url)
        assert (outcome.raised, outcome.types) == ("invalid_event", ["start"])
        assert len(gateway.requests) == 1


@each_library
async def test_another_servers_page_is_final_until_the_stream_was_read(library: str) -> None:
    page = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi"
    async with scripted(page) as other:
        assert (await reading(library, other.url)).raised == "not_headrace"
    assert len(other.requests) == 1
    async with scripted(stream(start(), whole=False), page, stream(done("3-2"))) as gateway:
        outcome = await reading(library, gateway.url)
    assert (outcome.raised, outcome.types) == (None, ["start", "done"])


@each_library
async def test_a_failure_names_when_to_come_back_if_it_passes(library: str) -> None:
    date = email.utils.formatdate(time.time() + 3600, usegmt=True)
    for retryable, least, most in ((True, 3500, 3600), (False, None, None)):
        refused = refusal(429, "queue_full", "m", retryable=retryable, headers=f"retry-after: {date}\r\n")
        async with scripted(refused) as gateway:
            outcome = await reading(library, gateway.url)
        assert outcome.raised == "queue_full"
        assert (outcome.wait_s is None) == (least is None)
        assert least is None or most is None or least < (outcome.wait_s or 0) <= most


@each_library
async def test_a_link_of_the_own_gateway_is_read_by_its_ticket(library: str) -> None:
    async with scripted(stream(start(), done("3-2"))) as gateway:
        await reading(library, gateway.url, f"{gateway.url}/chat/stream/s1?ticket=a.b", key="hr-k")
    assert "ticket=a.b" in gateway.requests[0].line
    assert "authorization" not in gateway.requests[0].headers


@each_language
async def test_a_link_for_reading_only_is_cancelled_with_the_key(library: str) -> None:
    refused = refusal(403, "forbidden", "reading only", retryable=False)
    cancelled = b"HTTP/1.1 202 Accepted\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
    async with scripted(refused, cancelled) as gateway:
        link = f"{gateway.url}/chat/stream/s1?ticket=a.b"
        if library == "javascript":
            await run("stop", url=gateway.url, key="hr-k", stream=link)
        else:
            async with AsyncClient(gateway.url, key="hr-k") as client:
                await client.cancel(link)
    assert gateway.lines == ["POST /chat/s1/cancel?ticket=a.b", "POST /chat/s1/cancel"]
    assert gateway.requests[1].headers["authorization"] == "Bearer hr-k"


@each_language
async def test_a_start_whose_response_lost_its_body_is_repeated(library: str) -> None:
    """A response without a length that breaks off after its head looks whole."""
    cut = b"HTTP/1.1 202 Accepted\r\nconnection: close\r\n\r\n"
    async with scripted(cut, accepted(), stream(start(), done("3-2"))) as gateway:
        if library == "javascript":
            assert (await run("start", url=gateway.url, models=["m"], idempotencyKey="mine"))[0]["types"] == [
                "start",
                "done",
            ]
        else:
            async with AsyncClient(gateway.url) as client:
                begun = await client.start([{"role": "user", "content": "hi"}], model="m", idempotency_key="mine")
                assert [type(each).__name__ async for each in begun] == ["Start", "Done"]
    first, second, _ = gateway.requests
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"] == "mine"


# --- the decoder

CONNECTION: Final = (
    "retry: 250\r\n: a comment, ü☃\r\n\r\nid: 1-1\r\nevent: token\r\ndata: grüße ☃\r\n\r\n"
    "data:no space\ndata:  two spaces \ndata\n\n"  # neither name nor id is kept from the event before
    "event: named\n\n"  # without data it is no event, and its name is not kept
    "data: x\nid: 1\x00\nid\nunknown: y\n\n"
    "id: 1-2\nid: 1\x003\ndata: with an id\n\n"
    "retry: -1\nretry: x\nretry: 12345678901\n:\n"
    "event: cut\ndata: without its blank line\n"
).encode()
FRAMES: Final[Any] = [
    ["token", "grüße ☃", "1-1"],
    ["message", "no space\n two spaces \n", None],
    ["message", "x", None],
    ["message", "with an id", "1-2"],
]


@each_language
async def test_a_connection_is_decoded_wherever_its_pieces_are_cut(library: str) -> None:
    cuts = [[CONNECTION[:at], CONNECTION[at:]] for at in range(len(CONNECTION))]
    cuts.append([bytes([byte]) for byte in CONNECTION])
    for cut, (frames, retry_ms, comments) in zip(cuts, await decoded(library, cuts), strict=True):
        assert frames == FRAMES, cut
        assert (retry_ms, comments) == (250, 2)


# --- delays

FAILED: Final[dict[str, Any]] = {}
PROGRESS: Final = {"reset": True}


@each_language
async def test_delays_grow_and_differ_until_there_is_progress(library: str) -> None:
    rounds = 20
    found = await delays(library, [*([FAILED] * 5), PROGRESS] * rounds, total_s=1000, first_s=1)
    assert [attempt for _, attempt in found] == [1, 2, 3, 4, 5] * rounds
    bounds = [(0.75, 1.25), (1.5, 2.5), (3, 5), (3.75, 6.25), (3.75, 6.25)] * rounds
    assert all(least <= delay <= most for (delay, _), (least, most) in zip(found, bounds, strict=True))
    assert len({round(delay, 6) for delay, _ in found}) > 4 * rounds


@each_language
async def test_the_first_delay_is_that_of_the_gateway(library: str) -> None:
    first, second = await delays(library, [FAILED, FAILED], total_s=1000, first_s=0.01)
    assert first[0] < 0.02
    assert 0.1 < second[0] < 0.3
    (slow,) = await delays(library, [FAILED], total_s=1000, first_s=30)
    assert slow[0] > 20


@each_language
async def test_retries_end_with_a_final_failure_or_their_time(library: str) -> None:
    assert (await delays(library, [FAILED, {"retryable": False}], total_s=1000, first_s=0))[1] == "c"
    assert (await delays(library, [FAILED], total_s=0, first_s=0)) == ["c"]
    assert (await delays(library, [{"after_s": 11}], total_s=10, first_s=0)) == ["c"]
    ((delay, _),) = await delays(library, [{"after_s": 8}], total_s=10, first_s=0)
    assert 8 <= delay <= 10


async def test_the_time_that_a_machine_sleeps_does_not_count() -> None:
    """A page of a laptop that was closed goes on reading."""
    assert await run("asleep") == ["retried", "retried", "c"]

"""An answer that a server of Responses stores is continued there, and its request is never sent again."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

import pytest
from pydantic import SecretStr

from shared.configuration.configuration import load_configuration
from shared.configuration.entries import ProviderEntry
from shared.errors import ProviderError
from shared.schemas.chat import StoredRequest
from shared.settings import Settings
from tests.fakes import Answer, FakeProvider, Storage, ToolCall
from tests.fakes.answer import Turnstile
from tests.provider_client import canonical, text_in
from tests.responses_frames import event, frames, response
from workers.providers.base import (
    AnswerPart,
    Delta,
    Finished,
    IgnoredFields,
    ProviderCursor,
    Replayed,
    StoredDeltas,
    StoringProvider,
)
from workers.providers.endpoint import ApiKey, Endpoint
from workers.providers.registry import provider_of

KEY: Final = ApiKey(SecretStr("key-of-storage"))
OTHER_KEY: Final = ApiKey(SecretStr("key-of-another-account"))
WORDS: Final = ("one ", "two ", "three ", "four")
TEXT: Final = "".join(WORDS)
TOOLS: Final = (ToolCall("c1", "look", ('{"a"', ": 1}")), ToolCall("c2", "look", ('{"b": ', "2}")))
LOOK: Final = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
#: An answer with reasoning, text and calls.
RICH: Final = Answer(reasoning=("I ", "think"), deltas=WORDS, tools=TOOLS)
#: An upper bound of its events.
MOST_EVENTS: Final = 40


class Upstream:
    """A fake server, and the adapter of a provider with ``background = true``."""

    def __init__(self, fake: FakeProvider) -> None:
        self.fake = fake
        self.adapter = adapter_of(fake, kind="openai-responses", background=True)

    def play(self, model: str, answer: Answer = RICH, **storage: Any) -> None:
        self.fake.play(model, replace(answer, storage=Storage(**storage)))

    async def stream(self, model: str, **fields: Any) -> list[AnswerPart]:
        return [part async for part in self.adapter.stream(request(model, **fields))]

    async def resume(self, model: str, at: int | None, id: str = "", key: ApiKey = KEY) -> list[AnswerPart]:
        """Continue the latest answer of a model, as another worker does."""
        cursor = ProviderCursor(id or self.id_of(model), at)
        return [part async for part in self.adapter.resume(request(model), key, cursor)]

    async def whole(self, model: str) -> list[Delta]:
        """Return all deltas of the latest answer of a model."""
        return deltas_in(await self.resume(model, None))

    def bodies(self, model: str) -> list[dict[str, Any]]:
        """Return the requests for a model."""
        return [call.request for call in self.fake.calls if call.model == model]

    def queries(self, model: str) -> list[dict[str, str]]:
        """Return the queries of the GETs for the latest answer of a model."""
        id = self.id_of(model)
        return [got.query for got in self.fake.gets if got.response_id == id]

    def id_of(self, model: str) -> str:
        call = [call for call in self.fake.calls if call.model == model][-1]
        return str(self.fake.stored(call).response["id"])

    def count(self, model: str) -> int:
        """Return the number of events of the latest answer of a model."""
        call = [call for call in self.fake.calls if call.model == model][-1]
        return len(self.fake.stored(call).frames)


@pytest.fixture(scope="module")
async def up() -> AsyncIterator[Upstream]:
    async with FakeProvider() as fake:
        upstream = Upstream(fake)
        yield upstream
        await upstream.adapter.aclose()


def adapter_of(fake: FakeProvider, **table: Any) -> Any:
    """Return the adapter of a provider of headrace.toml."""
    entry = ProviderEntry.model_validate({"base_url": fake.openai_base_url, **table})
    configuration = load_configuration(Settings())
    document = configuration.document.model_copy(update={"providers": {"up": entry}})
    return provider_of(Endpoint("up", entry, (KEY,), replace(configuration, document=document)))


def request(model: str, **fields: Any) -> StoredRequest:
    message = {"role": "user", "content": "hi"}
    return StoredRequest.model_validate({"model": model, "messages": [message], "tools": [LOOK], **fields})


def deltas_in(parts: Iterable[AnswerPart]) -> list[Delta]:
    """Return all deltas, with those that were replayed."""
    lists = [part.deltas if isinstance(part, Replayed) else part for part in parts]
    return [delta for deltas in lists if isinstance(deltas, list) for delta in deltas]


def cursors_in(parts: Iterable[AnswerPart]) -> list[ProviderCursor]:
    return [part.cursor for part in parts if isinstance(part, StoredDeltas)]


async def failure_of(parts: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await parts
    assert KEY.text not in caught.value.message + caught.value.detail
    return caught.value


# --- one worker


async def test_an_answer_names_its_place_with_each_read(up: Upstream) -> None:
    turnstile = Turnstile()
    up.play("places", replace(RICH, turnstile=turnstile))
    parts: list[AnswerPart] = []
    async for part in up.adapter.stream(request("places")):
        parts.append(part)
        await turnstile.allow(len(parts))
    first = parts[0]
    assert isinstance(first, StoredDeltas)
    assert (first, first.cursor.response_id) == ([], up.id_of("places"))
    assert all(isinstance(part, StoredDeltas) and part for part in parts[1:-1])
    places = [cursor.at for cursor in cursors_in(parts)]
    assert places == sorted(set(places), key=lambda at: at or 0)
    assert places[-1] == up.count("places") - 1
    assert text_in(deltas_in(parts)) == TEXT
    assert isinstance(parts[-1], Finished)
    (body,) = up.bodies("places")
    assert (body["background"], body["store"], body["stream"]) == (True, True, True)
    assert up.queries("places") == []


async def test_a_broken_connection_is_replaced_wherever_it_breaks(up: Upstream) -> None:
    async def check(cut: int) -> None:
        model = f"cut-{cut}"
        up.play(model, cuts=(cut,))
        parts = await up.stream(model)
        assert up.queries(model) == [{"stream": "true", "starting_after": str(cut - 1)}] * (cut < up.count(model))
        assert deltas_in(parts) == await up.whole(model)
        assert text_in(deltas_in(parts)) == TEXT
        assert isinstance(parts[-1], Finished)
        assert len(up.bodies(model)) == 1

    await asyncio.gather(*(check(cut) for cut in range(1, MOST_EVENTS)))


@pytest.mark.parametrize(
    "storage",
    [
        {"cuts": (9,), "cut_by": "reset"},
        {"cuts": (5, 3, 1, 2, 4)},
        {"cuts": (9,), "ignores_cursor": True},
        {"cuts": (9, 4), "keepalive_after": 6},
    ],
    ids=["reset", "often", "from the beginning", "numbered keep-alive"],
)
async def test_an_answer_survives_its_connections(up: Upstream, storage: dict[str, Any]) -> None:
    model = f"survives {storage}"
    up.play(model, **storage)
    parts = await up.stream(model)
    assert deltas_in(parts) == await up.whole(model)
    assert cursors_in(parts)[-1] == ProviderCursor(up.id_of(model), up.count(model) - 1)
    assert len(up.bodies(model)) == 1


async def test_a_whole_response_instead_of_events_repeats_nothing(up: Upstream) -> None:
    async def check(cut: int) -> None:
        model = f"json-{cut}"
        up.play(model, cuts=(cut,), is_json=True)
        parts = await up.stream(model)
        assert said(deltas_in(parts)) == said(await up.whole(model))
        assert isinstance(parts[-1], Finished)
        ends_plain = [part for part in parts if isinstance(part, list)][-1]
        assert isinstance(ends_plain, StoredDeltas) == (cut >= up.count(model))

    await asyncio.gather(*(check(cut) for cut in range(1, MOST_EVENTS)))


def said(deltas: list[Delta]) -> dict[str, Any]:
    """Return the output, however it is divided into deltas."""
    plain = canonical(deltas)
    texts = dict.fromkeys(("TextDelta", "ReasoningDelta"), "")
    for delta in plain:
        if (kind := type(delta).__name__) in texts:
            texts[kind] += getattr(delta, "text", "")
    fragments: dict[Any, str] = {}
    for delta in plain:
        if type(delta).__name__ == "ToolCallDelta":
            index = getattr(delta, "index", None)
            fragments[index] = fragments.get(index, "") + getattr(delta, "text", "")
    calls = [delta for delta in plain if type(delta).__name__ == "ToolCall"]
    return {**texts, "fragments": fragments, "calls": calls}


async def test_an_answer_too_old_to_be_streamed_is_polled_until_it_is_whole(up: Upstream) -> None:
    turnstile = Turnstile()
    up.play("old", replace(RICH, turnstile=turnstile), cuts=(12,), status=400)
    await turnstile.allow(2)
    known = len(up.fake.gets)
    reading = asyncio.create_task(up.stream("old"))
    await up.fake.wait_gets(known + 2)
    assert [got.query for got in up.fake.gets[known:]] == [{"stream": "true", "starting_after": "11"}, {}]
    await turnstile.allow(len(WORDS))
    parts = await reading
    assert said(deltas_in(parts))["TextDelta"] == TEXT
    assert len(said(deltas_in(parts))["calls"]) == len(TOOLS)
    assert len(up.bodies("old")) == 1


async def test_an_answer_of_a_server_that_does_not_stream_is_polled(up: Upstream) -> None:
    turnstile = Turnstile()
    up.play("whole", replace(RICH, turnstile=turnstile), never_streams=True)
    known = len(up.fake.gets)
    reading = asyncio.create_task(up.stream("whole"))
    await up.fake.wait_gets(known + 1)
    await turnstile.allow(len(WORDS))
    parts = await reading
    assert cursors_in(parts) == [ProviderCursor(up.id_of("whole"), None)]
    assert said(deltas_in(parts))["TextDelta"] == TEXT
    assert said(await up.whole("whole")) == said(deltas_in(parts))
    assert len(up.bodies("whole")) == 1


@pytest.mark.parametrize(
    ("storage", "detail"),
    [
        ({"cuts": (9, 0, 0, 0, 0)}, "ended its answer without a finish reason"),
        ({"cuts": (9,), "status": 404}, "ended its answer without a finish reason"),
        ({"cuts": (9,), "lost": (12,)}, "event 12 is missing"),
        ({"cuts": (9,), "lost": (9,)}, "event 9 is missing"),
        ({"cuts": (9,), "ignores_cursor": True, "other_id": "resp_other"}, "it is another response"),
        ({"cuts": (0,)}, "ended its answer without a finish reason"),
    ],
    ids=["no progress", "gone", "later hole", "hole", "another response", "before the id"],
)
async def test_an_answer_that_is_not_continued_fails(up: Upstream, storage: dict[str, Any], detail: str) -> None:
    model = f"fails {storage}"
    up.play(model, **storage)
    error = await failure_of(up.stream(model))
    assert error.code == "upstream_truncated"
    assert detail in error.detail
    assert len(up.bodies(model)) == 1


@pytest.mark.parametrize("storage", [{"ignored": True}, {"has_numbers": False}], ids=["ignored", "no numbers"])
async def test_a_server_that_cannot_resume_gets_no_further_request(up: Upstream, storage: dict[str, Any]) -> None:
    model = f"plain {storage}"
    up.play(model, **storage)
    known = len(up.fake.gets)
    parts = await up.stream(model)
    assert cursors_in(parts) == []
    assert text_in(deltas_in(parts)) == TEXT
    assert isinstance(parts[-1], Finished)
    up.play(model, replace(RICH, end="truncate"), **storage)
    assert (await failure_of(up.stream(model))).code == "upstream_truncated"
    assert len(up.fake.gets) == known


async def test_a_reader_that_leaves_closes_the_connection_but_not_the_answer(up: Upstream) -> None:
    turnstile = Turnstile()
    up.play("leaves", replace(RICH, turnstile=turnstile), cuts=(6,))
    known = len(up.fake.gets)
    async with aclosing(up.adapter.stream(request("leaves"))) as answer:
        reading = asyncio.create_task(drained(answer))
        got = (await up.fake.wait_gets(known + 1))[-1]
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    await got.call.wait_closed()
    assert got.call.closed_by_client
    await turnstile.allow(len(WORDS))
    assert text_in(await up.whole("leaves")) == TEXT


async def drained(parts: AsyncIterator[AnswerPart]) -> None:
    async for _ in parts:
        pass


# --- another worker


async def test_another_worker_continues_wherever_the_first_one_was(up: Upstream) -> None:
    up.play("any")
    whole = deltas_in(await up.stream("any"))
    last = up.count("any") - 1

    async def check(at: int) -> None:
        replayed, *rest = await up.resume("any", at)
        assert isinstance(replayed, Replayed)
        assert [*replayed.deltas, *deltas_in(rest)] == whole
        assert isinstance(rest[-1], Finished)
        assert all(cursor.at is not None and cursor.at > at for cursor in cursors_in(rest))

    await asyncio.gather(*(check(at) for at in range(last + 1)))
    assert deltas_in(await up.resume("any", None)) == whole
    assert len(up.bodies("any")) == 1
    replayed, *rest = await up.resume("any", last)
    assert (deltas_in([replayed]), [type(part) for part in rest]) == (whole, [Finished])


async def test_another_worker_continues_an_answer_that_is_still_generated(up: Upstream) -> None:
    turnstile = Turnstile()
    up.play("alive", replace(RICH, turnstile=turnstile))
    await turnstile.allow(2)
    before: list[Delta] = []
    async with aclosing(up.adapter.stream(request("alive"))) as answer:
        async for part in answer:
            before += part
            cursor = part.cursor
            if text_in(before) == "one two ":
                break
    assert cursor.at is not None
    known = len(up.fake.gets)
    resuming = asyncio.create_task(up.resume("alive", cursor.at))
    await up.fake.wait_gets(known + 2)
    await turnstile.allow(len(WORDS))
    replayed, *rest = await resuming
    assert isinstance(replayed, Replayed)
    assert replayed.deltas == before
    assert text_in(deltas_in(rest)) == "three four"
    begin, go_on = up.queries("alive")
    assert (begin, go_on) == ({"stream": "true"}, {"stream": "true", "starting_after": str(cursor.at)})


async def test_a_replay_survives_its_connections(up: Upstream) -> None:
    up.play("replayed", cuts=(40, 4, 3, 50, 2, 3))
    whole = deltas_in(await up.stream("replayed"))
    replayed, *rest = await up.resume("replayed", 10)
    assert [*deltas_in([replayed]), *deltas_in(rest)] == whole


@pytest.mark.parametrize("storage", [{"is_json": True}, {"cuts": (40, 40, 7)}], ids=["whole response", "cut"])
async def test_a_continuation_has_each_word_once(up: Upstream, storage: dict[str, Any]) -> None:
    model = f"continued {storage}"
    up.play(model, **storage)
    whole = said(deltas_in(await up.stream(model)))
    for at in (3, 9, 13):
        assert said(deltas_in(await up.resume(model, at))) == whole


@pytest.mark.parametrize(
    ("at", "storage", "code"),
    [
        (5, {"status": 404}, "upstream_truncated"),
        (5, {"status": 400}, "upstream_truncated"),
        (5, {"lost": (4,)}, "upstream_truncated"),
        (5, {"lost": (5,)}, "upstream_truncated"),
        (900, {}, "upstream_truncated"),
        (5, {"other_id": "resp_other"}, "upstream_truncated"),
        (5, {"status": 401}, "provider_auth"),
    ],
    ids=["gone", "too old", "hole", "missing", "beyond the end", "another response", "refused key"],
)
async def test_a_replay_that_misses_the_place_fails_before_any_output(
    up: Upstream, at: int, storage: dict[str, Any], code: str
) -> None:
    model = f"missed {at} {storage}"
    up.play(model, **storage)
    await up.stream(model)
    seen: list[AnswerPart] = []

    async def resumed() -> None:
        async for part in up.adapter.resume(request(model), KEY, ProviderCursor(up.id_of(model), at)):
            seen.append(part)

    assert (await failure_of(resumed())).code == code
    assert seen == []


async def test_an_answer_of_another_account_or_of_no_id_cannot_be_resumed(up: Upstream) -> None:
    up.play("own")
    await up.stream("own")
    for at in (None, 5):
        assert (await failure_of(up.resume("own", at, key=OTHER_KEY))).code == "upstream_truncated"
        assert (await failure_of(up.resume("own", at, id="../models"))).code == "upstream_truncated"
    assert len(up.bodies("own")) == 1


async def test_a_failed_answer_fails_again_behind_what_it_said(up: Upstream) -> None:
    up.play("fails", replace(RICH, end="error_in_band"))
    await failure_of(up.stream("fails"))
    seen: list[AnswerPart] = []

    async def resumed() -> None:
        async for part in up.adapter.resume(request("fails"), KEY, ProviderCursor(up.id_of("fails"), 12)):
            seen.append(part)

    assert (await failure_of(resumed())).code == "provider_unavailable"
    assert isinstance(seen[0], Replayed)
    assert said(deltas_in(seen))["TextDelta"] == TEXT


# --- cancel


async def test_cancel_stops_the_answer_at_the_provider(up: Upstream) -> None:
    turnstile = Turnstile()
    up.play("cancelled", replace(RICH, turnstile=turnstile))
    async with aclosing(up.adapter.stream(request("cancelled"))) as answer:
        await anext(answer)
    id = up.id_of("cancelled")
    for _ in range(2):
        await up.adapter.cancel(id, KEY)
    assert up.fake.cancels[-2:] == [id, id]
    assert up.fake.stored(up.fake.calls[-1]).status == "cancelled"
    assert (await failure_of(up.resume("cancelled", None))).code == "provider_unavailable"


async def test_cancel_of_an_answer_that_has_ended_does_nothing(up: Upstream) -> None:
    up.play("done")
    await up.stream("done")
    await up.adapter.cancel(up.id_of("done"), KEY)
    await up.adapter.cancel("resp_unknown", KEY)
    assert up.fake.stored(up.fake.calls[-1]).status == "completed"


@pytest.mark.parametrize(("status", "code"), [(500, "provider_unavailable"), (401, "provider_auth")])
async def test_a_cancel_that_fails_is_reported(up: Upstream, status: int, code: str) -> None:
    up.play(f"uncancelled {status}", cancel_status=status)
    await up.stream(f"uncancelled {status}")
    assert (await failure_of(up.adapter.cancel(up.id_of(f"uncancelled {status}"), KEY))).code == code


# --- requests


@pytest.mark.parametrize(
    "fields",
    [
        {"original": {"family": "responses", "body": {"input": "hi", "store": False}}},
        {"original": {"family": "openai", "body": {"store": False, "messages": []}}},
        {"provider_options": {"responses": {"store": False}}},
    ],
    ids=["Responses", "Chat Completions", "options"],
)
async def test_a_client_that_forbids_storage_is_obeyed(up: Upstream, fields: dict[str, Any]) -> None:
    assert not up.adapter.stores(request("obeyed", **fields))
    up.play("obeyed")
    parts = await up.stream("obeyed", **fields)
    assert cursors_in(parts) == []
    body = up.bodies("obeyed")[-1]
    assert body["store"] is False
    assert "background" not in body


async def test_an_original_is_stored_unless_it_forbids_it(up: Upstream) -> None:
    up.play("original")
    client = {"input": "hi", "metadata": {"a": "b"}}
    assert cursors_in(await up.stream("original", original={"family": "responses", "body": client}))
    body = up.bodies("original")[-1]
    assert body == {**client, "model": "original", "stream": True, "background": True, "store": True}


UNKNOWN: Final = {"message": "Unknown parameter: 'background'.", "param": "background", "code": "unknown_parameter"}
#: vLLM's, unless it was started with VLLM_ENABLE_RESPONSES_API_STORE=1.
NO_STORE: Final = {
    "message": "This vLLM engine does not support `store=True` and therefore does not support the background mode. "
    "To enable these features, set the environment variable `VLLM_ENABLE_RESPONSES_API_STORE=1` when launching.",
    "type": "invalid_request_error",
    "param": "background",
    "code": 400,
}


@pytest.mark.parametrize("report", [UNKNOWN, NO_STORE, {**NO_STORE, "param": None}], ids=["unknown", "vLLM", "text"])
@pytest.mark.parametrize("has_original", [True, False])
async def test_a_server_that_refuses_background_is_not_asked_to_store(
    up: Upstream, has_original: bool, report: dict[str, Any]
) -> None:
    model = f"refused-{has_original}-{report['code']}-{report['param']}"
    up.fake.play(model, Answer(status=400, error_body={"error": report}), RICH)
    fields = {"original": {"family": "responses", "body": {"input": "hi"}}} if has_original else {}
    parts = await up.stream(model, **fields, unsupported_fields="refuse")
    assert cursors_in(parts) == []
    assert not any(isinstance(part, IgnoredFields) for part in parts)
    assert text_in(deltas_in(parts)) == TEXT
    first, second = up.bodies(model)
    assert (first["background"], first["store"]) == (True, True)
    assert "background" not in second
    assert second.get("store") in ({None} if has_original else {None, False})


async def test_an_id_that_is_no_part_of_a_path_is_not_stored(up: Upstream) -> None:
    known = len(up.fake.gets)
    for id in ("../models", "..", "a" * 300, "resp/1", 7):
        created = event("created", response=response(id=id, background=True))
        text = event("output_text.delta", output_index=0, content_index=0, delta="hi")
        up.fake.play("strange", Answer(segments=[frames(created, text)]))
        assert (await failure_of(up.stream("strange"))).code == "upstream_truncated"
    assert len(up.fake.gets) == known


async def test_only_providers_of_responses_store(up: Upstream) -> None:
    both: Any = adapter_of(up.fake, kind="openai", responses_models=["*-pro"], background=True)
    off = adapter_of(up.fake, kind="openai-responses")
    chat = adapter_of(up.fake, kind="openai")
    storing = [isinstance(adapter, StoringProvider) for adapter in (up.adapter, both, chat)]
    assert storing == [True, True, False]
    assert up.adapter.stores(request("m"))
    assert not up.adapter.stores(request("m", only_count=True))
    assert (both.stores(request("m-pro")), both.stores(request("m"))) == (True, False)
    assert not off.stores(request("m"))
    up.play("both-pro")
    parts = [part async for part in both.stream(request("both-pro"))]
    cursor = ProviderCursor(up.id_of("both-pro"), 9)
    resumed = [part async for part in both.resume(request("both-pro"), None, cursor)]
    assert deltas_in(resumed) == deltas_in(parts)
    await both.cancel(up.id_of("both-pro"), None)
    up.play("off")
    assert cursors_in([part async for part in off.stream(request("off"))]) == []
    assert (up.bodies("off")[-1]["store"], "background" in up.bodies("off")[-1]) == (False, False)
    for adapter in (both, off, chat):
        await adapter.aclose()

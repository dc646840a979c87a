"""Dispatch turns a request into exactly one stream with one queued job, or refuses it and leaves nothing in Redis."""

import json
from typing import Any

import pytest

from gateway.auth.principal import Principal
from gateway.intake.backlog import Backlog
from gateway.intake.budgets import RequestBudgets
from gateway.intake.dispatch import Dispatch, Dispatched
from gateway.intake.storage import Storage
from shared.broker.client import Client
from shared.broker.keys import QUEUE, WAITING, of_key, principal_streams_key, state_key, stream_of_job
from shared.broker.scripts import StreamScripts
from shared.configuration.configuration import load_configuration
from shared.configuration.current import CurrentConfiguration
from shared.errors import IdempotencyConflict, InvalidRequest, LimitReached, QueueFull
from shared.protocol.ids import bucket_of, idempotency_digest
from shared.schemas import ChatRequest
from shared.settings import Settings

ALICE, BOB = Principal("alice"), Principal("bob")
#: 16 characters are four tokens, as estimated.
PROMPT = "x" * 16


def dispatch_of(client: Client, **settings: Any) -> Dispatch:
    made = Settings(**settings)
    scripts = StreamScripts(made)
    backlog = Backlog(client, longest_wait_s=60)
    budgets = RequestBudgets(CurrentConfiguration(load_configuration(made)))
    return Dispatch(client, scripts, made, backlog, Storage(client, scripts, made), budgets)


async def create(
    dispatch: Dispatch,
    prompt: str = PROMPT,
    *,
    principal: Principal = ALICE,
    key: str | None = None,
    body_hash: str = "0a",
    **fields: Any,
) -> Dispatched:
    body = {"provider": "fake", "model": "m", "messages": [{"role": "user", "content": prompt}], **fields}
    return await dispatch.dispatch(
        ChatRequest.model_validate(body),
        body_hash=body_hash,
        principal=principal,
        idempotency_key=key,
        on_disconnect="continue",
        extra_fields={},
    )


async def queued(client: Client) -> list[str]:
    """The ids in the queue, in the order in which workers take them."""
    return [stream_of_job(job_id.decode()) for job_id in await client.zrange(QUEUE, 0, -1)]


# --- what Redis holds afterwards


async def test_a_request_becomes_one_queued_stream_with_one_job(client: Client) -> None:
    dispatched = await create(dispatch_of(client), metadata={"n": "1"})
    stream_id = dispatched.stream_id
    fields = await client.hgetall(state_key(stream_id))  # type: ignore[misc]
    state = {name.decode(): value.decode() for name, value in fields.items()}
    assert (state["status"], state["epoch"], state["attempt"]) == ("queued", "0", "0")
    assert (state["principal"], state["provider"], state["model"]) == ("alice", "fake", "m")
    assert json.loads(state["request"])["messages"][0]["content"] == PROMPT
    assert json.loads(state["metadata"]) == {"n": "1"}
    assert await queued(client) == [stream_id]
    assert await client.exists(of_key(stream_id)) == 1
    assert await client.zrange(WAITING, 0, -1) == [stream_id.encode()]
    assert await client.zrange(principal_streams_key("alice"), 0, -1) == [stream_id.encode()]


async def test_every_key_has_an_expiry(client: Client) -> None:
    await create(dispatch_of(client, requests_per_minute=10), key="k")
    names = [name async for name in client.scan_iter()]
    assert len(names) >= 8
    assert [name for name in names if await client.ttl(name) < 0] == []


# --- one stream per idempotency key


async def test_the_same_key_gives_the_same_stream_and_no_second_job(client: Client) -> None:
    dispatch = dispatch_of(client)
    first, second = await create(dispatch, key="k"), await create(dispatch, key="k")
    assert second.stream_id == first.stream_id == await dispatch.find("alice", "k", "0a")
    assert first.admission is not None
    assert second.admission is None
    assert await queued(client) == [first.stream_id]


async def test_a_key_with_another_body_is_a_conflict(client: Client) -> None:
    dispatch = dispatch_of(client)
    first = await create(dispatch, key="k")
    with pytest.raises(IdempotencyConflict):
        await create(dispatch, key="k", body_hash="0b")
    with pytest.raises(IdempotencyConflict):
        await dispatch.find("alice", "k", "0b")
    assert await queued(client) == [first.stream_id]


async def test_a_key_belongs_to_its_principal(client: Client) -> None:
    dispatch = dispatch_of(client)
    first, other = await create(dispatch, key="k"), await create(dispatch, key="k", principal=BOB)
    assert first.stream_id != other.stream_id
    assert await dispatch.find("carol", "k", "0a") is None


async def test_a_stream_lies_in_the_bucket_of_its_key(client: Client) -> None:
    """One Redis script creates the stream and its idempotency entry, so both need the same hash slot."""
    for n in range(20):
        dispatched = await create(dispatch_of(client), key=f"k{n}")
        assert bucket_of(dispatched.stream_id) == bucket_of(idempotency_digest("alice", f"k{n}"))


# --- the queue


async def test_queue_positions_count_from_one(client: Client) -> None:
    dispatch = dispatch_of(client)
    assert [(await create(dispatch)).queue_position for _ in range(3)] == [1, 2, 3]


async def test_principals_take_turns_in_the_queue(client: Client) -> None:
    dispatch = dispatch_of(client)
    many = [(await create(dispatch)).stream_id for _ in range(3)]
    other = await create(dispatch, principal=BOB)
    assert other.queue_position <= 2
    first, second, *rest = await queued(client)
    assert {first, second} == {many[0], other.stream_id}  # each one's first turn, in either order
    assert rest == many[1:]


async def test_a_full_queue_refuses_and_creates_nothing(client: Client) -> None:
    dispatch = dispatch_of(client, queue_depth=2)
    ids = [(await create(dispatch)).stream_id for _ in range(2)]
    before = await client.dbsize()
    with pytest.raises(QueueFull) as refused:
        await create(dispatch)
    assert refused.value.message == "the queue is full: 2 requests wait; try again later"
    assert 1 <= refused.value.retry_after_s <= 60
    assert await queued(client) == ids
    assert await client.dbsize() == before


async def test_a_lost_job_is_queued_again_and_a_queued_one_is_not(client: Client) -> None:
    dispatch = dispatch_of(client)
    stream_id = (await create(dispatch)).stream_id
    assert not await dispatch.requeue(stream_id)
    await client.delete(QUEUE)
    assert await dispatch.requeue(stream_id)
    assert await queued(client) == [stream_id]


# --- limits and their headers


async def test_without_limits_there_are_no_headers(client: Client) -> None:
    admission = (await create(dispatch_of(client))).admission
    assert admission is not None
    assert admission.headers == {}


async def test_an_admitted_request_gets_the_rest_of_its_limits_as_headers(client: Client) -> None:
    dispatch = dispatch_of(client, requests_per_minute=10, tokens_per_minute=1000)
    admission = (await create(dispatch, max_tokens=96)).admission
    assert admission is not None
    headers = admission.headers
    assert (headers["X-RateLimit-Limit-Requests"], headers["X-RateLimit-Remaining-Requests"]) == ("10", "9")
    assert (headers["X-RateLimit-Limit-Tokens"], headers["X-RateLimit-Remaining-Tokens"]) == ("1000", "900")
    assert 1 <= int(headers["X-RateLimit-Reset-Requests"].removesuffix("s")) <= 60
    # Both limits have nine tenths left; the headers without a name are those of the first.
    assert (headers["RateLimit-Limit"], headers["RateLimit-Remaining"]) == ("10", "9")
    assert headers["RateLimit-Policy"] == "10;w=60"


async def test_a_limit_of_the_principal_replaces_that_of_the_settings(client: Client) -> None:
    principal = Principal("alice", limits={"requests_per_minute": 3})
    admission = (await create(dispatch_of(client, requests_per_minute=10), principal=principal)).admission
    assert admission is not None
    assert admission.headers["RateLimit-Limit"] == "3"


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        ({"requests_per_minute": 1}, "requests_per_minute_exceeded", "limit of 1 requests per minute reached"),
        ({"tokens_per_minute": 150}, "tokens_per_minute_exceeded", "requires up to 100 tokens; 100 of 150"),
        ({"tokens_per_day": 150}, "tokens_per_day_exceeded", "requires up to 100 tokens; 100 of 150"),
        ({"concurrent_streams": 1}, "concurrent_streams_exceeded", "limit of 1 concurrent streams reached"),
    ],
)
async def test_a_reached_limit_refuses_and_creates_nothing(
    client: Client, settings: dict[str, int], code: str, message: str
) -> None:
    dispatch = dispatch_of(client, **settings)
    first = await create(dispatch, max_tokens=96)
    before = await client.dbsize()
    with pytest.raises(LimitReached, match=message) as refused:
        await create(dispatch, max_tokens=96)
    assert refused.value.code == code
    assert 1 <= int(refused.value.headers["Retry-After"]) <= 60
    assert await queued(client) == [first.stream_id]
    assert await client.dbsize() == before
    assert (await create(dispatch, max_tokens=96, principal=BOB)).admission is not None  # an account of its own


@pytest.mark.parametrize(("prompt", "field"), [("x" * 4000, "messages"), (PROMPT, "max_tokens")])
async def test_a_request_above_the_whole_limit_is_invalid(client: Client, prompt: str, field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{field}: requires up to "):
        await create(dispatch_of(client, tokens_per_minute=500), prompt, max_tokens=500)
    assert await client.dbsize() == 0


async def test_a_repeated_request_is_counted_once(client: Client) -> None:
    dispatch = dispatch_of(client, requests_per_minute=1)
    first = await create(dispatch, key="k")
    assert (await create(dispatch, key="k")).stream_id == first.stream_id

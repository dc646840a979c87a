"""The lists of models that OpenAI's and Anthropic's SDKs read, and names that no list has."""

import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from anthropic import AsyncAnthropic

from tests.fakes.answer import Answer
from tests.openai_client import openai_client
from tests.system import System

NAMES = ("claude-a-20250929", "claude-b", *(f"m{at:02}" for at in range(30)))
DATED = datetime(2026, 1, 1, tzinfo=UTC)  # by the fake provider
USER: list[Any] = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
async def listing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """Yield a system with one provider, which lists its models."""
    system = System(tmp_path_factory.mktemp("listing"), gateways=1, workers=1, providers=("anthropic",))
    system.fake.models = NAMES
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


@pytest.fixture
async def claude(listing: System) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=listing.url, api_key="none", max_retries=0) as client:
        yield client


async def test_the_sdk_of_anthropic_reads_all_that_it_needs(claude: AsyncAnthropic) -> None:
    listed = [model async for model in claude.models.list()]
    assert [model.id for model in listed] == [*(f"anthropic/{name}" for name in NAMES), "demo/demo"]
    model = await claude.models.retrieve("anthropic/claude-b")
    assert (model.type, model.display_name, model.created_at) == ("model", "claude-b", DATED)
    demo = await claude.models.retrieve("demo/demo")
    assert demo.created_at.year >= DATED.year, "it has no date, so this is the time of the first offer"
    with pytest.raises(anthropic.NotFoundError) as caught:
        await claude.models.retrieve("anthropic/none")
    assert caught.value.type == "not_found_error"


async def test_pages_follow_each_other_in_both_directions(claude: AsyncAnthropic) -> None:
    every = [f"anthropic/{name}" for name in NAMES] + ["demo/demo"]
    assert [model.id async for model in claude.models.list(limit=7)] == every
    first = await claude.models.list(limit=20)
    assert (first.has_more, first.first_id, first.last_id) == (True, every[0], every[19])
    last = await claude.models.list(limit=20, after_id=first.last_id or "")
    assert (last.has_more, [model.id for model in last.data]) == (False, every[20:])
    backward = await claude.models.list(limit=2, before_id=every[4])
    assert (backward.has_more, [model.id for model in backward.data]) == (True, every[2:4])
    for wrong in ({"limit": 0}, {"after_id": "none"}, {"before_id": "none"}):
        with pytest.raises(anthropic.BadRequestError) as caught:
            await claude.models.list(**wrong)
        assert caught.value.type == "invalid_request_error"
        assert next(reversed(wrong)) in caught.value.message


async def test_the_sdk_of_openai_reads_the_same_list(listing: System) -> None:
    async with openai_client(listing) as client:
        listed = [model async for model in client.models.list()]
        (found,) = [model for model in listed if model.id == "anthropic/claude-b"]
        assert (found.object, found.owned_by, found.created) == ("model", "anthropic", int(DATED.timestamp()))
        assert await client.models.retrieve("anthropic/claude-b") == found
        with pytest.raises(openai.NotFoundError) as caught:
            await client.models.retrieve("anthropic/none")
        assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("name", ["anthropic/claude-new", "claude-a"])
async def test_an_unlisted_name_is_tried(listing: System, claude: AsyncAnthropic, name: str) -> None:
    """Providers accept names that they do not list: aliases without a date, and models of one account."""
    listing.fake.play(name.removeprefix("anthropic/"), Answer(deltas=["tried"]))
    message = await claude.messages.create(model=name, messages=USER, max_tokens=9)
    assert [block.text for block in message.content if block.type == "text"] == ["tried"]
    body = {"provider": "anthropic", "model": name.removeprefix("anthropic/"), "messages": USER}
    assert (await listing.http.post(f"{listing.url}/chat", json=body)).status_code == 202


@pytest.mark.parametrize("name", ["claude", "claude-new", "m", "demo/other", "none/claude-b"])
async def test_a_name_that_no_provider_can_mean_is_refused(claude: AsyncAnthropic, name: str) -> None:
    """Also names of a list that is closed, as the demo's is."""
    with pytest.raises(anthropic.NotFoundError):
        await claude.messages.create(model=name, messages=USER, max_tokens=9)


async def test_a_provider_that_does_not_have_the_model_says_so(listing: System, claude: AsyncAnthropic) -> None:
    listing.fake.play("gone", Answer(status=404))
    with pytest.raises(anthropic.NotFoundError):
        await claude.messages.create(model="anthropic/gone", messages=USER, max_tokens=9)


async def test_unlisted_names_can_be_refused(tmp_path: Path) -> None:
    system = System(tmp_path / "strict", gateways=1, workers=1, providers=("anthropic",), unknown_models="refuse")
    system.folder.mkdir()
    system.fake.models = NAMES
    try:
        await system.start()
        async with AsyncAnthropic(base_url=system.url, api_key="none", max_retries=0) as client:
            for name in ("anthropic/claude-new", "claude-a", "claude-new"):
                with pytest.raises(anthropic.NotFoundError):
                    await client.messages.create(model=name, messages=USER, max_tokens=9)
            system.fake.play("claude-b", Answer(deltas=["listed"]))
            await client.messages.create(model="claude-b", messages=USER, max_tokens=9)
            system.workers[0].signal(signal.SIGTERM)
            await system.workers[0].wait()
            with pytest.raises(anthropic.InternalServerError) as refused:  # the next worker may bring the model
                await client.messages.create(model="claude-new", messages=USER, max_tokens=9)
            assert "no worker runs at the moment, try again shortly" in refused.value.message
    finally:
        await system.stop()

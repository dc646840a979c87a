"""Any number of providers of the same kind serve one system, each under its own name."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from gateway.intake.aliases import ordered
from shared.configuration.entries import Target
from shared.schemas import ChatRequest
from tests.fakes import Answer, FakeProvider
from tests.system import System, ask

NAMES = ("alpha", "azure", "beta", "local")
Fakes = dict[str, FakeProvider]
CONFIGURATION = """
[providers.alpha]
kind = "openai"
base_url = "{alpha.openai_base_url}"
api_keys = ["env:ALPHA_KEY"]
headers = {{ "x-team" = "chat" }}
deny = ["logit_bias"]

[providers.azure]
kind = "openai"
base_url = "{azure.openai_base_url}"
api_keys = ["file:{folder}/azure-key"]
auth = "api-key"

[providers.beta]
kind = "anthropic"
base_url = "{beta.anthropic_base_url}"
api_keys = ["env:BETA_KEY"]
auth = "bearer"

[providers.local]
kind = "ollama"
base_url = "{local.ollama_host}"

[models.fast]
targets = ["alpha/m", "azure/m", "beta/m"]
fallbacks = ["local/m"]

[models."team/slow"]
targets = ["local/m"]
"""


@pytest.fixture(scope="module")
async def fakes() -> AsyncIterator[Fakes]:
    async with AsyncExitStack() as stack:
        fakes = {name: await stack.enter_async_context(FakeProvider()) for name in NAMES}
        for name, fake in fakes.items():
            fake.models = ()
            fake.play("m", Answer(deltas=[name]))
        yield fakes


@pytest.fixture(scope="module")
async def system(fakes: Fakes, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    folder = tmp_path_factory.mktemp("named")
    (folder / "azure-key").write_text("key-of-azure\n")
    (folder / "headrace.toml").write_text(CONFIGURATION.format(**fakes, folder=folder))
    system = System(
        folder,
        gateways=1,
        workers=1,
        providers=NAMES,
        environment={"ALPHA_KEY": "key-of-alpha", "BETA_KEY": "key-of-beta"},
        config=folder / "headrace.toml",
        provider_retries=0,
    )
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


async def answer_of(system: System, model: str, **body: Any) -> tuple[str, dict[str, Any]]:
    """Return text and status of one answer."""
    status = await system.ended(await system.post(model, **{"provider": None, **body}))
    return str(status["text"]), status


@pytest.mark.parametrize("name", NAMES)
async def test_each_provider_answers_under_its_name(system: System, name: str) -> None:
    text, status = await answer_of(system, f"{name}/m")
    assert text == name
    assert (status["provider"], status["model"]) == (name, "m")


async def test_each_provider_gets_its_own_credentials_and_headers(system: System, fakes: Fakes) -> None:
    expected = {
        "alpha": {"authorization": "Bearer key-of-alpha", "x-team": "chat"},
        "azure": {"api-key": "key-of-azure"},
        "beta": {"authorization": "Bearer key-of-beta"},
        "local": {},
    }
    for name, headers in expected.items():
        await answer_of(system, f"{name}/m")
        sent = fakes[name].calls[-1].headers
        credentials = {"authorization", "api-key", "x-api-key", "x-team"}
        assert {key: value for key, value in sent.items() if key in credentials} == headers


async def test_a_name_before_a_slash_is_a_provider_only_if_one_has_it(system: System) -> None:
    assert (await answer_of(system, "team/slow"))[0] == "local"


async def test_aliases_are_listed_as_models(system: System) -> None:
    listed = (await system.http.get(f"{system.url}/v1/models")).json()["data"]
    assert [model["id"] for model in listed if model["owned_by"] == "headrace"] == ["fast", "team/slow"]
    one = await system.http.get(f"{system.url}/v1/models/team/slow")
    assert one.json()["id"] == "team/slow"


async def test_requests_with_the_same_beginning_go_to_the_same_target(system: System) -> None:
    for number in range(4):
        messages = [{"role": "system", "content": f"instructions {number}"}]
        targets = {
            (await answer_of(system, "fast", messages=[*messages, {"role": "user", "content": str(turn)}]))[0]
            for turn in range(3)
        }
        assert len(targets) == 1


async def test_a_target_that_fails_is_replaced_by_another(system: System, fakes: Fakes) -> None:
    for name in ("alpha", "azure", "beta"):
        fakes[name].play("m", Answer(status=503))
    try:
        text, status = await answer_of(system, "fast")
    finally:
        for name in ("alpha", "azure", "beta"):
            fakes[name].play("m", Answer(deltas=[name]))
    assert text == "local"
    assert status["provider"] == "local"


async def test_a_field_that_one_target_denies_goes_to_another(system: System) -> None:
    for turn in range(6):
        body = {**ask("fast", str(turn)), "provider": None}
        answer = await system.http.post(
            f"{system.url}/v1/chat/completions",
            json={"model": "fast", "messages": body["messages"], "logit_bias": {"1": 1}},
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"] != "alpha"
    refused = await system.http.post(
        f"{system.url}/v1/chat/completions",
        json={"model": "alpha/m", "messages": [{"role": "user", "content": "hi"}], "logit_bias": {"1": 1}},
    )
    assert refused.status_code == 403
    assert "logit_bias: not allowed here; remove it" in refused.text


async def test_an_unknown_alias_lists_near_names(system: System) -> None:
    answer = await system.http.post(f"{system.url}/chat", json={**ask("fsat"), "provider": None})
    assert answer.status_code == 400
    assert "did you mean fast?" in answer.text


def test_targets_are_first_in_proportion_to_their_weights() -> None:
    targets = [Target(target="a/m", weight=1), Target(target="b/m", weight=3)]
    first = [ordered(targets, request(f"instructions {n}"))[0] for n in range(2000)]
    assert 0.70 < first.count("b/m") / len(first) < 0.80


def test_a_lost_target_moves_no_other_prefix() -> None:
    targets = [Target(target=f"{name}/m") for name in "abcd"]
    for n in range(200):
        order = ordered(targets, request(f"instructions {n}"))
        assert ordered(targets[1:], request(f"instructions {n}")) == [name for name in order if name != "a/m"]


def request(system: str) -> ChatRequest:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": "hi"}]
    return ChatRequest.model_validate({"model": "fast", "messages": messages})

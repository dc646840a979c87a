"""Budgets are exact over all gateways: reserved before a stream is queued, and corrected to what it really cost."""

import asyncio
import itertools
import re
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from typer.testing import CliRunner

from headrace.api_keys import app as keys_app
from shared.broker.budgets import BudgetUse, read_budget_uses
from shared.broker.client import connect
from shared.budgets import SERVER, Budgets, parse_budget
from shared.environment import load_settings
from shared.settings import SettingsError
from tests.credentials import JWT_SETTINGS, bearer, boot_credentials, make_key, run_headrace
from tests.fakes.answer import Answer, Counts
from tests.responses import code_of
from tests.system import System, ask

#: Each request has four tokens of prompt, as estimated, and up to 96 of output.
PROMPT, OUTPUT, TOKENS = "x" * 16, 96, 100
#: The prices below make an input token 1,000 nanos, and one of output 10,000.
COST = 4 * 1_000 + OUTPUT * 10_000
FIT, TRIES = 10, 50
#: Exactly ten requests.
TEN = "0.00964 USD"
PRICES = """
[models.both]
targets = ["openai/cheap"]
fallbacks = ["openai/echo"]
[models.half]
targets = ["openai/echo", "openai/unpriced"]
""" + "".join(
    f"""
[prices."openai/{model}"]
currency = "{currency}"
as_of = 2026-11-01
input = {input_price}
output = {output_price}
"""
    for model, currency, input_price, output_price in (
        *(("echo", "USD", 1, 10), ("held", "USD", 1, 10), ("short", "USD", 1, 10), ("refuses", "USD", 1, 10)),
        *(("greedy", "USD", 1, 10), ("cheap", "USD", 0.1, 1), ("euro", "EUR", 1, 10), ("breaks", "USD", 1, 10)),
    )
)
names = (f"user-{n}" for n in itertools.count())
#: Longer than a test takes from its first request to its last look at a budget.
TEST_LASTS = timedelta(seconds=30)


@pytest.fixture(autouse=True)
async def _one_day() -> None:
    """Wait for the next day if this one is about to end: its budgets begin anew then."""
    while (now := datetime.now(UTC)).date() != (now + TEST_LASTS).date():
        await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
async def keyed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """Two gateways with budgets of API keys, and one of the server that no test reaches."""
    system = System(
        tmp_path_factory.mktemp("keyed"),
        workers=1,
        providers=("openai",),
        auth="keys,jwt",
        configuration=PRICES,
        budget_month="1000 USD,1000000000 tokens",
        provider_retries=0,
        **JWT_SETTINGS,
    )
    try:
        system.http.headers.update(boot_credentials())
        await system.start()
        del system.http.headers["Authorization"]
        yield system
        await all_settled(system)
    finally:
        await system.stop()


class Key:
    """An API key with budgets."""

    def __init__(self, system: System, text: str, budgets: Budgets) -> None:
        self.system = system
        self.text = text
        self.id = text.split("-")[1]
        self.budgets = budgets

    @classmethod
    async def make(cls, system: System, day: str = "", month: str = "", *more: str) -> "Key":
        options = [*more, *(["--budget-day", day] if day else []), *(["--budget-month", month] if month else [])]
        text = await make_key(system, next(names), *options)
        return cls(system, text, Budgets(parse_budget(day), parse_budget(month)))

    async def post(
        self,
        model: str = "echo",
        *,
        gateway: int = 0,
        max_tokens: int | None = OUTPUT,
        user: str | None = None,
        **more: Any,
    ) -> httpx2.Response:
        limit = {} if max_tokens is None else {"max_tokens": max_tokens}
        body = ask(model, PROMPT, **limit, **more)
        url = f"{self.system.gateways[gateway].url}/chat"
        headers = bearer(self.text) | ({"X-Headrace-User": user} if user else {})
        return await self.system.http.post(url, json=body, headers=headers)

    async def post_many(self, model: str = "echo", tries: int = TRIES, **more: Any) -> list[httpx2.Response]:
        """Send all requests at once, over both gateways."""
        return await asyncio.gather(*(self.post(model, gateway=n % 2, **more) for n in range(tries)))

    async def uses(self) -> list[BudgetUse]:
        return await uses_of(self.system, self.id, self.budgets)

    async def spent(self) -> list[int]:
        """Return what is used of each limit, once all is settled: of the month, then of the day."""
        await all_settled(self.system)
        uses = await self.uses()
        assert not any(use.reserved for use in uses)
        return [use.used for use in uses]


async def uses_of(system: System, account: str, budgets: Budgets) -> list[BudgetUse]:
    client = connect(system.redis_url)
    try:
        return (await read_budget_uses(client, {account: budgets}))[account]
    finally:
        await client.aclose()


async def all_settled(system: System) -> None:
    async def look() -> bool:
        async with system.broker.client() as client:
            of_streams = [key async for key in client.scan_iter("hr:{desk}:of:*")]
            accounts = [await client.hget(key, "account") for key in of_streams]  # type: ignore[misc]
            return not any(accounts)

    await system.eventually(look, timeout_s=40)


def counted(answers: list[httpx2.Response]) -> dict[str, int]:
    return Counter("accepted" if a.status_code == 202 else code_of(a)[1] for a in answers)


@pytest.mark.parametrize(
    ("day", "month"),
    [(TEN, ""), ("", TEN), (f"{FIT * TOKENS} tokens", ""), (f"5 USD,{FIT * TOKENS} tokens", TEN), (TEN, "1 USD")],
)
async def test_budgets_are_counted_exactly_and_settled_by_the_real_cost(keyed: System, day: str, month: str) -> None:
    gate = asyncio.Event()
    keyed.fake.play("held", Answer(gate=gate, usage=(3, 2)))
    key = await Key.make(keyed, day, month)
    answers = await key.post_many("held")
    assert counted(answers) == {"accepted": FIT, "budget_reached": TRIES - FIT}
    refused = next(a for a in answers if a.status_code != 202)
    assert code_of(refused) == (402, "budget_reached")
    # Only requests in progress hold it.
    assert refused.json()["error"]["retryable"] is True
    assert refused.headers["retry-after"] == "5"
    assert "0 USD of" in refused.json()["error"]["message"] or "0 tokens of" in refused.json()["error"]["message"]
    gate.set()
    used = {"nanos": FIT * (3 * 1_000 + 2 * 10_000), "tokens": FIT * 5}
    assert await key.spent() == [used[use.kind] for use in await key.uses()]


async def test_a_used_up_budget_refuses_until_its_period_ends(keyed: System) -> None:
    keyed.fake.play("greedy", Answer(usage=Counts(4, OUTPUT)))
    key = await Key.make(keyed, TEN)
    for n in range(FIT):
        assert (await key.post("greedy", gateway=n % 2)).status_code == 202
        await key.spent()
    refused = await key.post("greedy")
    assert code_of(refused) == (402, "budget_reached")
    error = refused.json()["error"]
    assert error["retryable"] is False
    assert "retry-after" not in refused.headers
    (use,) = await key.uses()
    ends = f"{use.resets_at:%Y-%m-%dT%H:%M:%SZ}"
    assert use.resets_at > datetime.now(UTC)
    assert "budget of the API key: 0.00964 USD of 0.00964 USD are used today (UTC)" in error["message"]
    assert f"needs up to 0.000964 USD; available again from {ends}" in error["message"]
    report = await keyed.http.get(f"{keyed.url}/v1/usage", headers=bearer(key.text))
    amounts = {"limit": 0.00964, "used": 0.00964, "reserved": 0, "resets_at": ends}
    assert report.json()["budgets"] == [{"period": "day", "kind": "money", "currency": "USD", **amounts}]
    listed = (await asyncio.to_thread(run_headrace, keyed, "keys", "list")).stdout
    line = next(line for line in listed.splitlines() if line.startswith(key.id))
    assert "budget_day=0.00964 USD (used 0.00964 USD, reserved 0 USD)" in line


async def test_an_answer_that_costs_more_than_was_reserved_is_charged_in_full(keyed: System) -> None:
    keyed.fake.play("greedy", Answer(usage=Counts(40, 1000, cached=20, cache_write=4, reasoning=5)))
    key = await Key.make(keyed, TEN, "1000000 tokens")
    await key.post("greedy")
    assert await key.spent() == [1040, 40 * 1_000 + 1000 * 10_000]
    assert code_of(await key.post("greedy")) == (402, "budget_reached")


async def test_cancelled_and_failed_streams_cost_what_they_used(keyed: System) -> None:
    keyed.fake.play("refuses", Answer(status=400))
    key = await Key.make(keyed, TEN, "100000 tokens")
    for _ in range(3):
        await key.post("refuses")
    assert await key.spent() == [0, 0]
    keyed.fake.play("held", Answer(deltas=["one ", "two ", "three"], gate=asyncio.Event(), gate_after=2))
    stream_id = (await key.post("held")).json()["stream_id"]
    await keyed.eventually(lambda: has_output(keyed, stream_id))
    await keyed.http.post(f"{keyed.url}/chat/{stream_id}/cancel", headers=bearer(key.text))
    tokens, nanos = await key.spent()
    assert 4 < tokens < TOKENS
    assert nanos == 4 * 1_000 + (tokens - 4) * 10_000
    keyed.fake.play("held", Answer(deltas=["one ", "two"], gate=asyncio.Event(), gate_after=1))
    stream_id = (await key.post("held")).json()["stream_id"]
    await keyed.eventually(lambda: has_output(keyed, stream_id))
    await keyed.http.delete(f"{keyed.url}/chat/{stream_id}", headers=bearer(key.text))
    assert await key.spent() == [tokens + TOKENS, nanos + COST]  # what a deleted stream would use is unknown


async def has_output(system: System, stream_id: str) -> bool:
    return await system.field(stream_id, "log_epoch") not in {None, "0"}


async def test_a_request_in_a_row_never_finds_the_last_ones_reservation(keyed: System) -> None:
    """A client that has seen `done` sends its next request, before the worker may have settled the last one."""
    keyed.fake.play("short", Answer(usage=(0, 0)))
    headers = bearer((await Key.make(keyed, "0.000964 USD")).text)  # exactly one
    for n in range(40):
        async with await keyed.stream("short", PROMPT, gateway=n % 2, headers=headers, max_tokens=96) as connection:
            frames = await connection.rest()
        assert frames[-1].event == "done", f"request {n + 1}: {frames}"


async def test_the_same_request_again_reserves_nothing(keyed: System) -> None:
    key = await Key.make(keyed, "0.000964 USD")
    headers = bearer(key.text) | {"Idempotency-Key": "the same"}
    body = ask("echo", PROMPT, max_tokens=OUTPUT)
    posts = [keyed.http.post(f"{each.url}/chat", json=body, headers=headers) for each in keyed.gateways * 10]
    answers = await asyncio.gather(*posts)
    assert {a.status_code for a in answers} == {202}, answers[0].text
    assert len({a.json()["stream_id"] for a in answers}) == 1


async def test_users_behind_one_key_share_its_budget(keyed: System) -> None:
    gate = asyncio.Event()
    keyed.fake.play("held", Answer(gate=gate, usage=(3, 2)))
    key = await Key.make(keyed, TEN, "", "--scopes", "chat,read,act_for")
    posts = [key.post("held", gateway=n % 2, user=f"user-{n % 4}") for n in range(20)]
    assert counted(await asyncio.gather(*posts)) == {"accepted": FIT, "budget_reached": 10}
    gate.set()
    assert await key.spent() == [FIT * 23_000]


async def test_the_dearest_target_of_a_request_is_reserved(keyed: System) -> None:
    gate = asyncio.Event()
    keyed.fake.play("cheap", Answer(gate=gate, usage=(3, 2)))
    key = await Key.make(keyed, TEN)
    answers = await key.post_many("both", tries=20, provider=None)
    assert counted(answers) == {"accepted": FIT, "budget_reached": 10}
    gate.set()
    assert await key.spent() == [FIT * (3 * 100 + 2 * 1_000)]
    answers = await key.post_many("cheap", tries=60, fallbacks=[])
    assert counted(answers) == {"accepted": 60}


@pytest.mark.parametrize(
    ("model", "currency"), [("unpriced", "USD"), ("euro", "USD"), ("half", "USD"), ("echo", "EUR")]
)
async def test_a_model_without_a_price_in_the_currency_is_refused(keyed: System, model: str, currency: str) -> None:
    key = await Key.make(keyed, month=f"5 {currency}")
    alias: dict[str, Any] = {"provider": None} if model == "half" else {}
    answer = await key.post(model, **alias)
    assert code_of(answer) == (422, "price_unknown")
    target = "openai/unpriced" if model == "half" else f"openai/{model}"
    assert f"model: {target} has no price in {currency}" in answer.json()["error"]["message"]
    assert f'[prices."{target}"]' in answer.json()["error"]["message"]
    assert (await key.uses())[0].reserved == 0


async def test_a_request_above_a_whole_budget_is_invalid_at_once(keyed: System) -> None:
    key = await Key.make(keyed, TEN, f"{FIT * TOKENS} tokens")
    answer = await key.post(max_tokens=FIT * TOKENS)
    assert code_of(answer) == (422, "invalid_request")
    assert answer.json()["error"]["message"].startswith("max_tokens: needs up to 1004 tokens")
    dear = await Key.make(keyed, "0.000001 USD")
    assert (await dear.post()).json()["error"]["message"].startswith("messages: may cost up to 0.000004 USD, above")
    assert (await key.post(max_tokens=None)).status_code == 202  # an assumption never makes a request impossible


async def test_a_warning_is_given_once(keyed: System) -> None:
    keyed.fake.play("greedy", Answer(usage=Counts(4, OUTPUT)))
    key = await Key.make(keyed, TEN)
    for n in range(FIT):
        await key.post("greedy", gateway=n % 2)
        await key.spent()
    for _ in range(3):
        await key.post("greedy")
    lines = [line for each in keyed.gateways for line in each.log.read_text().splitlines()]
    warned = [line for line in lines if "budget nearly spent" in line and key.id in line]
    assert len(warned) == 1
    assert '"period": "day"' in warned[0] or '"period":"day"' in warned[0]
    assert key.text not in "".join(lines)


async def test_official_sdks_get_the_refusal_and_do_not_retry(keyed: System) -> None:
    keyed.fake.play("greedy", Answer(usage=Counts(4, 1000)))
    key = await Key.make(keyed, "0.001 USD")
    await key.post("greedy")
    await key.spent()
    messages: Any = [{"role": "user", "content": PROMPT}]
    async with openai.AsyncOpenAI(base_url=f"{keyed.url}/v1", api_key=key.text) as client:
        with pytest.raises(openai.APIStatusError) as of_chat:
            await client.chat.completions.create(model="openai/greedy", messages=messages, max_tokens=9)
        with pytest.raises(openai.APIStatusError) as of_responses:
            await client.responses.create(model="openai/greedy", input=PROMPT, max_output_tokens=16)
    for error in (of_chat.value, of_responses.value):
        assert (error.status_code, error.code, error.type) == (402, "insufficient_quota", "insufficient_quota")
        assert "available again from" in error.message
        assert error.response.request.headers["x-stainless-retry-count"] == "0"
    async with anthropic.AsyncAnthropic(base_url=keyed.url, auth_token=key.text) as claude:
        with pytest.raises(anthropic.APIStatusError) as of_messages:
            await claude.messages.create(model="openai/greedy", messages=messages, max_tokens=9)
    assert of_messages.value.status_code == 402
    body: Any = of_messages.value.body
    assert body["error"]["type"] == "billing_error"
    assert of_messages.value.response.request.headers["x-stainless-retry-count"] == "0"


async def test_the_server_counts_all_keys_together(keyed: System) -> None:
    """Also those of the tests of this file so far: nothing was lost, and nothing was counted twice."""
    for _ in range(2):
        assert (await (await Key.make(keyed, TEN)).post()).status_code == 202
    await all_settled(keyed)
    client = connect(keyed.redis_url)
    async with keyed.broker.client() as raw:
        names = [name.decode() async for name in raw.scan_iter("hr:{desk}:budget:*")]
        counts = {name.rpartition(":")[2]: await raw.hgetall(name) for name in names}  # type: ignore[misc]
        assert await keyed.keys_without_expiry() == []
    await client.aclose()
    server = counts.pop(SERVER)
    month = next(name.decode().partition(":")[0] for name in server if name.startswith(b"m"))
    tokens = sum(int(each.get(f"{month}:tokens".encode(), 0)) for each in counts.values())
    assert int(server[f"{month}:tokens".encode()]) == tokens > 0


# --- budgets of the server, without authentication


@pytest.fixture(scope="module")
async def bare(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    system = System(
        tmp_path_factory.mktemp("bare"),
        workers=2,
        providers=("openai",),
        configuration=PRICES,
        budget_day=TEN,
        budget_month="1 USD, 1000000 tokens",
        budget_unknown="allow",
        lease_s=1,
    )
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


async def test_the_budget_of_the_server_holds_for_all_and_survives_a_killed_worker(bare: System) -> None:
    gate = asyncio.Event()
    bare.fake.play("held", Answer(deltas=["a ", "b"], gate=gate, gate_after=1, usage=(3, 2)))
    body = ask("held", PROMPT, max_tokens=OUTPUT)
    posts = [bare.http.post(f"{bare.gateways[n % 2].url}/chat", json=body) for n in range(TRIES)]
    answers = await asyncio.gather(*posts)
    assert counted(answers) == {"accepted": FIT, "budget_reached": TRIES - FIT}
    message = next(a for a in answers if a.status_code == 402).json()["error"]["message"]
    assert message.startswith("budget of the server: reserved by requests in progress for today (UTC)")
    assert "USD" not in message  # its amounts are the operator's
    budgets = (await bare.http.get(f"{bare.url}/ops/usage")).json()["budgets"]
    assert [(each["period"], each["kind"], each["limit"]) for each in budgets] == [
        *(("month", "money", 1), ("month", "tokens", 1_000_000), ("day", "money", 0.00964)),
    ]
    ids = [a.json()["stream_id"] for a in answers if a.status_code == 202]
    for stream_id in ids:
        await bare.eventually(partial(has_output, bare, stream_id))
    for worker in bare.workers:
        worker.stop()
    for worker in bare.workers:
        worker.start()
    gate.set()
    for stream_id in ids:
        assert (await bare.ended(stream_id, timeout_s=60))["status"] == "completed"
    await all_settled(bare)
    await bare.eventually(partial(shows_budget, bare), timeout_s=40)
    uses = await uses_of(bare, SERVER, Budgets(parse_budget(TEN), parse_budget("1 USD,1000000 tokens")))
    assert not any(use.reserved for use in uses)
    month, tokens, day = (use.used for use in uses)
    assert month == day >= FIT * 23_000  # the calls of the killed worker cost something too
    assert tokens >= FIT * 5


async def shows_budget(system: System) -> bool:
    metrics = (await system.http.get(f"{system.url}/metrics")).text
    labels = '{currency="USD",kind="money",period="day"}'
    values = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if line.startswith("headrace_budget_"))
    limit, used = (float(values.get(f"headrace_budget_{name}{labels}", 0)) for name in ("limit", "used"))
    return limit == 0.00964 and used > 0 and values[f"headrace_budget_reserved{labels}"] == "0.0"


async def test_a_model_without_a_price_is_free_if_that_is_allowed(bare: System) -> None:
    bare.fake.play("unpriced", Answer(usage=(3, 2)))
    budgets = Budgets(parse_budget(TEN), parse_budget("1 USD,1000000 tokens"))
    before = await uses_of(bare, SERVER, budgets)
    answers = [
        await bare.http.post(f"{bare.url}/chat", json=ask("unpriced", PROMPT, max_tokens=96)) for _ in range(20)
    ]
    assert counted(answers) == {"accepted": 20}
    await all_settled(bare)
    after = await uses_of(bare, SERVER, budgets)
    assert [b.used - a.used for a, b in zip(before, after, strict=True)] == [0, 100, 0]


WRONG = [
    ("5", "entry 1 is no amount of money and no number of tokens; write it as 5 USD"),
    ("5 usd", "entry 1 is no amount of money"),
    ("5 USD,6 EUR", "has two amounts of money; use one"),
    ("0 USD", "entry 1 is 0, which allows nothing; leave it out"),
    ("5 USD,-3 tokens", "entry 2 is no amount"),
    ("2000000000 USD", "entry 1 is above 1000000000 USD; use less"),
]


@pytest.mark.parametrize(("value", "problem"), WRONG)
def test_a_wrong_budget_names_the_option_and_the_remedy(
    value: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = CliRunner().invoke(keys_app, ["create", "alice", "--budget-day", value], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    shown = " ".join(re.sub("[│╭─╮╰╯]", " ", result.output).split())
    assert f"Invalid value for --budget-day: {problem}" in shown
    monkeypatch.setenv("HEADRACE_BUDGET_MONTH", value)
    with pytest.raises(SettingsError, match=f"HEADRACE_BUDGET_MONTH: {problem}"):
        load_settings()


def test_budgets_of_one_account_have_one_currency(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = "is in EUR, and the other budget USD; use one currency for both"
    options = ["create", "alice", "--budget-day", "5 USD", "--budget-month", "9 EUR"]
    result = CliRunner().invoke(keys_app, options, env={"COLUMNS": "200"})
    assert problem in " ".join(result.output.split())
    monkeypatch.setenv("HEADRACE_BUDGET_DAY", "5 USD")
    monkeypatch.setenv("HEADRACE_BUDGET_MONTH", "9 EUR")
    with pytest.raises(SettingsError, match=f"HEADRACE_BUDGET_MONTH: {problem}"):
        load_settings()

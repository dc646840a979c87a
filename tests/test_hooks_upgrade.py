"""Hooks beside processes without them: of the previous release, or of this tree without the setting. Where one side
has hooks, no request reaches a provider unchecked and no answer a reader unwatched; ``headrace doctor`` says so."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli import finish, headrace
from tests.fakes.answer import Answer
from tests.mixed_system import MixedSystem
from tests.previous_release import unpack_previous_release
from tests.sse_client import error_of, text_of
from tests.test_hooks import PRIVATE, PROMPT, REDACTED, TEXT, WORDS, sent_for

NEW, OLD = 0, 1
HOOKS = "tests.fakes.hooks:TestHooks"


class Hooked(MixedSystem):
    """The first gateway has hooks; the second one and the worker are of the previous release, which has none, and
    refuses to start with the setting."""

    def __init__(self, folder: Path, previous: Path) -> None:
        options: dict[str, Any] = {"lease_s": 2, "drain_s": 0.5, "provider_retries": 0}
        super().__init__(folder, previous, old=("gateway.2", "worker.1"), workers=1, **options)

    def _environment(self, name: str) -> dict[str, str]:
        return super()._environment(name) | ({"HEADRACE_HOOKS": HOOKS} if name == "gateway.1" else {})

    async def restart(self, *, new: bool, hooks: bool = False) -> None:
        """Replace the worker as a rolling deploy does."""
        (worker,) = self.workers
        worker.environment.pop("HEADRACE_HOOKS", None)
        if hooks:
            worker.environment["HEADRACE_HOOKS"] = HOOKS
        await self.replace(worker, new=new)

    async def doctor(self) -> list[str]:
        """Return the findings about hooks, without the ids of processes."""
        process = await headrace("doctor", "--json", "--url", self.url, HEADRACE_REDIS_URL=self.broker.url)
        checks = json.loads((await finish(process, timeout_s=120)).out)["checks"]
        return [
            f"{each['state']} {each['name'].split()[0]}: {each['detail']}"
            for each in checks
            if each["check"] == "hooks"
        ]


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[Hooked]:
    system = Hooked(tmp_path, unpack_previous_release(tmp_path / "previous"))
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


@pytest.mark.timeout(300)
async def test_nothing_passes_the_hooks_of_one_side(system: Hooked) -> None:
    (worker,) = system.workers
    await the_worker_answers_nothing(system, "old-worker", "provider_not_configured")
    lacking = await system.doctor()
    assert [each.split(":")[0] for each in lacking] == ["WRONG gateway", "WRONG worker"]
    assert all("it is too old for hooks: upgrade it" in each for each in lacking)
    await system.restart(new=True)
    await the_worker_answers_nothing(system, "worker-without", "hook_failed")
    assert "HEADRACE_HOOKS is set on a gateway and not here" in worker.log.read_text()
    assert "set HEADRACE_HOOKS as on the others" in (await system.doctor())[1]
    await system.restart(new=True, hooks=True)
    await the_worker_checks_what_an_old_gateway_takes(system)
    await an_old_worker_does_not_go_on(system)


async def the_worker_answers_nothing(system: Hooked, model: str, code: str) -> None:
    """No target is called: neither the request's own nor a fallback."""
    system.fake.play(model, Answer(deltas=WORDS))
    async with await system.stream(model, PROMPT, gateway=NEW, fallbacks=[f"openai/{model}-2"]) as connection:
        frames = await connection.rest()
    assert error_of(frames)[0] == code
    assert text_of(frames) == ""
    assert sent_for(system, model) == sent_for(system, f"{model}-2") == "[]"


async def the_worker_checks_what_an_old_gateway_takes(system: Hooked) -> None:
    """It goes on with a chat of the other gateway, too."""
    for gateway in (NEW, OLD):
        model = f"gateway-{gateway}"
        system.fake.play(model, Answer(deltas=WORDS))
        async with await system.stream(model, PROMPT, gateway=gateway, chat_id="mixed") as connection:
            assert text_of(await connection.rest()) == TEXT
        assert sent_for(system, model).count(REDACTED) == 1 + gateway
        assert PRIVATE.search(sent_for(system, model)) is None
    for prompt, code in (("this is forbidden", "request_refused"), ("explode", "hook_failed")):
        async with await system.stream("refused", prompt, gateway=OLD) as connection:
            assert error_of(await connection.rest())[0] == code
    assert sent_for(system, "refused") == "[]"
    log = [json.loads(line) for line in system.workers[0].log.read_text().splitlines()]
    late = [line for line in log if line["event"] == "request checked late"]
    assert len(late) == 3
    assert "forbidden" not in json.dumps(log)


async def an_old_worker_does_not_go_on(system: Hooked) -> None:
    """A rollback hands a running stream over to a worker that does not know hooks."""
    gate = asyncio.Event()
    system.fake.play("rolled-back", Answer(deltas=WORDS, gate=gate, gate_after=1))
    async with await system.stream("rolled-back", PROMPT, gateway=NEW) as connection:
        await connection.next("token")
        await system.restart(new=False)
        gate.set()
        frames = await connection.rest()
    assert error_of(frames)[0] == "provider_not_configured"
    assert len([call for call in system.fake.calls if call.model == "rolled-back"]) == 1

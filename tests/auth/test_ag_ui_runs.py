"""Runs of AG-UI belong to their callers; a link reads one of them."""

import json
from functools import partial
from typing import Any

from tests.credentials import bearer, token
from tests.fakes.answer import Answer
from tests.responses import code_of
from tests.system import System


def run_input(run_id: str, model: str) -> dict[str, Any]:
    message = {"id": "u", "role": "user", "content": "hi"}
    return {"threadId": "t", "runId": run_id, "messages": [message], "forwardedProps": {"model": model}}


def types(text: str) -> list[str]:
    return [
        json.loads(line.removeprefix("data: "))["type"] for line in text.splitlines() if line.startswith("data: ")
    ]


async def is_not_found(system: System, method: str, url: str, headers: dict[str, str]) -> bool:
    """Return False right after the start of Redis, which may have lost the run."""
    answer = await system.http.request(method, url, headers=headers)
    assert answer.status_code in {404, 503}
    return answer.status_code == 404


async def test_a_run_id_finds_only_the_callers_own_run(guarded: System) -> None:
    guarded.fake.play("ag-own", Answer(deltas=("mine",)))
    url, alice, bob = f"{guarded.url}/ag-ui", bearer(token("ag-alice")), bearer(token("ag-bob"))
    begun = await guarded.http.post(url, json=run_input("ag-own", "openai/ag-own"), headers=alice)
    assert types(begun.text)[-1] == "RUN_FINISHED"
    stream_id = begun.headers["x-stream-id"]
    for name in ("ag-own", stream_id):
        run = f"{url}/runs/{name}?threadId=t"
        assert (await guarded.http.get(run, headers=alice)).status_code == 200
        for method, path in (("GET", run), ("POST", run.replace("?", "/cancel?")), ("DELETE", run)):
            await guarded.eventually(partial(is_not_found, guarded, method, path, bob))
    guarded.fake.play("ag-own", Answer(deltas=("his",)))
    other = await guarded.http.post(url, json=run_input("ag-own", "openai/ag-own"), headers=bob)
    assert other.headers["x-stream-id"] != stream_id


async def test_a_link_reads_the_run_of_its_stream(guarded: System) -> None:
    guarded.fake.play("ag-link", Answer(deltas=("for all",)))
    url, alice = f"{guarded.url}/ag-ui", bearer(token("ag-alice"))
    begun = await guarded.http.post(url, json=run_input("ag-link", "openai/ag-link"), headers=alice)
    stream_id = begun.headers["x-stream-id"]
    assert begun.headers["location"] == f"/ag-ui/runs/{stream_id}"
    made = await guarded.http.post(f"{guarded.url}/chat/{stream_id}/tickets", json={}, headers=alice)
    ticket = {"ticket": made.json()["stream_url"].partition("ticket=")[2]}
    read = await guarded.http.get(f"{url}/runs/{stream_id}", params=ticket)
    assert types(read.text)[-1] == "RUN_FINISHED"
    assert "for all" in read.text
    assert (await guarded.http.get(f"{url}/runs/{'00' * 17}", params=ticket)).status_code == 401
    assert (await guarded.http.get(f"{url}/runs/ag-link", params={**ticket, "threadId": "t"})).status_code == 401
    assert (await guarded.http.post(f"{url}/runs/{stream_id}/cancel", params=ticket)).status_code == 403


async def test_the_credentials_limit_a_run_as_any_request(guarded: System) -> None:
    guarded.fake.play("ag-allowed", Answer(deltas=("yes",)))
    limited = bearer(token("ag-limited", models="openai/ag-allowed", denied_fields="temperature"))
    url = f"{guarded.url}/ag-ui"
    hot = {"model": "openai/ag-allowed", "temperature": 0.5}
    for body, status, code in (
        (run_input("ag-1", "openai/ag-secret"), 403, "model_not_allowed"),
        (run_input("ag-2", "") | {"forwardedProps": hot}, 403, "field_not_allowed"),
    ):
        refused = await guarded.http.post(url, json=body, headers=limited)
        assert code_of(refused) == (status, code)
    allowed = await guarded.http.post(url, json=run_input("ag-3", "openai/ag-allowed"), headers=limited)
    assert types(allowed.text)[-1] == "RUN_FINISHED"

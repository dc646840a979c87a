"""Each route needs its scope, and no route shows content without the scope that reads."""

import asyncio
import json
from typing import Any, Final

import pytest
from fastapi.routing import iter_route_contexts

from gateway.app import create_app
from shared.configuration.configuration import load_configuration
from shared.scopes import Scope
from shared.settings import Settings
from tests.credentials import bearer, start_stream, token
from tests.fakes import Answer
from tests.responses import code_of
from tests.system import SECRET, System, ask

PUBLIC: Final = "public"
ANY_CALLER: Final = "any caller"
CHAT, READ, CANCEL, ADMIN, _ = Scope

#: Every route of the gateway. A route without an entry fails the test.
ROUTES: Final[dict[str, Scope | str]] = {
    "POST /chat": CHAT,
    "POST /chat/stream": CHAT,
    "GET /chat/stream": PUBLIC,  # 405, with the way to go on
    "DELETE /chat/stream": PUBLIC,
    "GET /chat/stream/{stream_id}": READ,
    "GET /chat/{stream_id}": READ,
    "POST /chat/{stream_id}/cancel": CANCEL,
    "DELETE /chat/{stream_id}": CANCEL,
    "GET /chat": READ,
    "GET /chats": READ,
    "GET /chats/{chat_id:path}": READ,
    "DELETE /chats/{chat_id:path}": CANCEL,
    "POST /chat/{stream_id}/tickets": READ,
    "POST /v1/chat/completions": CHAT,
    "POST /v1/messages": CHAT,
    "POST /v1/messages/count_tokens": CHAT,
    "POST /v1/responses": CHAT,
    "POST /v1/responses/input_tokens": CHAT,
    "GET /v1/responses/{response_id}/input_items": READ,
    "GET /v1/responses/{response_id}": READ,
    "POST /v1/responses/{response_id}/cancel": CANCEL,
    "DELETE /v1/responses/{response_id}": CANCEL,
    "POST /api/chat": CHAT,
    "GET /api/chat/{chat_id:path}/stream": READ,
    "POST /api/chat/{chat_id:path}/stop": CANCEL,
    "POST /ag-ui": CHAT,
    "GET /ag-ui/capabilities": ANY_CALLER,
    "GET /ag-ui/runs/{run_id:path}": READ,
    "POST /ag-ui/runs/{run_id:path}/cancel": CANCEL,
    "DELETE /ag-ui/runs/{run_id:path}": CANCEL,
    "GET /v1/models": ANY_CALLER,
    "GET /v1/models/{name:path}": ANY_CALLER,
    "GET /v1/usage": READ,
    "GET /ops/usage": ADMIN,
    "GET /connection": ANY_CALLER,
    "GET /ops/overview": ADMIN,
    "GET /ops/streams/{stream_id}": ADMIN,
    "POST /ops/streams/{stream_id}/cancel": ADMIN,
    "GET /ops/audit": ADMIN,
    "GET /healthz": PUBLIC,
    "GET /readyz": PUBLIC,
    "GET /metrics": PUBLIC,
    "GET /openapi.json": PUBLIC,
    "GET /": PUBLIC,
    "GET /ops": PUBLIC,
    "GET /docs": PUBLIC,
    "GET /page": PUBLIC,
    "GET /page/client": PUBLIC,
}
NOWHERE: Final = {
    "{stream_id}": "00" * 17,
    "{response_id}": f"resp_{'00' * 17}",
    "{chat_id:path}": "none",
    "{run_id:path}": "none",
    "{name:path}": "demo/demo",
}


def routes() -> set[str]:
    app = create_app(load_configuration(Settings(secret=SECRET)))
    found = set()
    for route in iter_route_contexts(app.routes):
        found |= {f"{method} {route.path}" for method in route.methods or {"GET"} if method != "HEAD"}
    return found


def test_every_route_is_in_the_table() -> None:
    assert routes() == ROUTES.keys()


async def call(system: System, route: str, headers: dict[str, str]) -> tuple[int, str]:
    """Call a route with a body that is no JSON, and return the status and the text."""
    method, path = route.split()
    for name, value in NOWHERE.items():
        path = path.replace(name, value)
    answer = await system.http.request(method, system.url + path, content=b"{", headers=headers)
    return answer.status_code, answer.text


@pytest.mark.parametrize("scope", [None, *Scope])
async def test_a_route_accepts_only_credentials_with_its_scope(guarded: System, scope: Scope | None) -> None:
    """The scope is checked before the body is parsed."""
    for route, need in ROUTES.items():
        status, text = await call(guarded, route, bearer(token("matrix", scope=scope or "")))
        if isinstance(need, Scope) and need is not scope:
            assert status == 403, route
            assert f"the scope {need};" in text, route
        else:
            assert status not in {401, 403}, route


async def test_a_route_for_callers_refuses_others(guarded: System) -> None:
    for route, need in ROUTES.items():
        status, _ = await call(guarded, route, {})
        assert (status == 401) == (need != PUBLIC), route


async def ended(system: System, stream_id: str) -> None:
    async def has_ended() -> bool:
        answer = await system.http.get(f"{system.url}/chat/{stream_id}", headers=bearer(token("scoped")))
        return bool(answer.json()["ended_at"])

    await system.eventually(has_ended)


async def test_a_link_reads_and_so_needs_the_scope_read(guarded: System) -> None:
    stream_id = (await start_stream(guarded, token("scoped"), prompt="for readers"))["stream_id"]
    url = f"{guarded.url}/chat/{stream_id}/tickets"
    for may_cancel, scopes, missing in (
        (False, "chat cancel", "read"),
        (True, "chat cancel", "read"),
        (True, "chat read", "cancel"),
        (False, "read", None),
        (True, "read cancel", None),
    ):
        headers = bearer(token("scoped", scope=scopes))
        answer = await guarded.http.post(url, json={"may_cancel": may_cancel}, headers=headers)
        assert answer.status_code == (201 if missing is None else 403)
        assert missing is None or f"the scope {missing};" in answer.text


@pytest.mark.parametrize("moment", ["running", "ended"])
async def test_a_cancel_without_the_scope_read_shows_no_content(guarded: System, moment: str) -> None:
    """Every dialect's cancel, by a caller that may only cancel."""
    gate = asyncio.Event()
    model = f"cancelled-{moment}"
    guarded.fake.play(model, Answer(deltas=["canary", "more"], gate=gate, gate_after=1))
    user, only_cancels = token("scoped"), bearer(token("scoped", scope="cancel"))
    message = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "hi"}]}
    body = {"id": f"chat-{moment}", "model": f"openai/{model}", "messages": [message]}
    if moment == "ended":
        gate.set()
    native = (await start_stream(guarded, user, model, metadata={"secret": "canary"}))["stream_id"]
    background = {"model": f"openai/{model}", "input": "canary", "background": True}
    answer = await guarded.http.post(f"{guarded.url}/v1/responses", json=background, headers=bearer(user))
    response_id = answer.json()["id"]
    async with guarded.http.stream("POST", f"{guarded.url}/api/chat", json=body, headers=bearer(user)) as chat:
        chat_stream = chat.headers["x-stream-id"]
    streams = {native, chat_stream, response_id.removeprefix("resp_")}
    if moment == "ended":
        for stream_id in streams:
            await ended(guarded, stream_id)
    answers = [
        await guarded.http.post(f"{guarded.url}{path}", headers=only_cancels)
        for path in (
            f"/chat/{native}/cancel",
            f"/v1/responses/{response_id}/cancel",
            f"/v1/responses/resp_{native}/cancel",
            f"/api/chat/chat-{moment}/stop",
        )
    ]
    gate.set()
    assert [answer.status_code for answer in answers] == [202, 200, 200, 200]
    assert "canary" not in "".join(answer.text for answer in answers)
    assert [set(answer.json()) for answer in answers] == [
        {"stream_id", "status"},
        {"id", "object", "status"},
        {"id", "object", "status"},
        {"success", "stream_id"},
    ]
    deleted = await guarded.http.delete(f"{guarded.url}/v1/responses/{response_id}", headers=only_cancels)
    assert set(deleted.json()) == {"id", "object", "deleted"}
    # With the scope that reads, the SDKs' whole object comes as before.
    reads = bearer(token("scoped", scope="read cancel"))
    whole = await guarded.http.post(f"{guarded.url}/v1/responses/resp_{native}/cancel", headers=reads)
    assert "canary" in whole.text


async def test_a_reference_to_stored_content_needs_the_scope_read(guarded: System) -> None:
    url, user = f"{guarded.url}/v1/responses", token("scoped")
    first = await guarded.http.post(url, json={"model": "openai/echo", "input": "canary"}, headers=bearer(user))
    reference = {"type": "item_reference", "id": first.json()["output"][0]["id"]}
    bodies: list[dict[str, Any]] = [
        {"input": "and?", "previous_response_id": first.json()["id"]},
        {"input": [reference, {"role": "user", "content": "and?"}]},
        {"input": "and?", "previous_response_id": f"resp_{'00' * 17}"},  # existence is content, too
    ]
    for body in bodies:
        request = {"model": "openai/echo", **body}
        refused = await guarded.http.post(url, json=request, headers=bearer(token("scoped", scope="chat")))
        assert code_of(refused) == (403, "forbidden")
        assert "the scope read;" in refused.json()["error"]["message"]

        async def allowed(request: dict[str, Any] = request) -> bool:
            """A system that has just started cannot tell an unknown stream from one that is being restored."""
            reads = bearer(token("scoped", scope="chat read"))
            status = (await guarded.http.post(url, json=request, headers=reads)).status_code
            assert status in {200, 400, 503}
            return status != 503

        await guarded.eventually(allowed, timeout_s=40)
    plain = {"model": "openai/echo", "input": "hi", "previous_response_id": None}
    alone = await guarded.http.post(url, json=plain, headers=bearer(token("scoped", scope="chat")))
    assert alone.status_code == 200


async def test_the_scope_chat_gets_the_answer_to_its_own_request(guarded: System) -> None:
    """Also if the response was lost and the request is repeated with its key."""
    chats = bearer(token("scoped", scope="chat"))
    key = {"Idempotency-Key": "own-request"}
    body = json.dumps(ask("echo", "mine"))
    for _ in range(2):
        answer = await guarded.http.post(f"{guarded.url}/chat/stream", content=body, headers=chats | key)
        assert "mine" in answer.text
    started = (await guarded.http.post(f"{guarded.url}/chat", content=body, headers=chats)).json()
    assert "mine" in (await guarded.http.get(guarded.url + started["stream_url"])).text
    assert (await guarded.http.get(guarded.url + started["status_url"], headers=chats)).status_code == 403

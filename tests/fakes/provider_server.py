"""A provider on a real port that speaks the real wire formats and behaves as configured.

Every model name is a behaviour: ``fake.play("slow", Answer(delay_s=0.1))``. ``echo`` repeats the last user message;
any other name is a 404, as with real providers.
"""

import asyncio
import json
import re
import socket
import sys
from collections.abc import Callable
from typing import Any, Final, Self

from tests.fakes.answer import Answer, Call
from tests.fakes.anthropic_wire import AnthropicWire
from tests.fakes.http import Connection, Request
from tests.fakes.ollama_wire import OllamaWire
from tests.fakes.openai_wire import OpenAIWire
from tests.fakes.play import Play
from tests.fakes.responses_wire import ResponsesWire
from tests.fakes.stored_answers import Get, StoredAnswer, StoredAnswers
from tests.fakes.wire import Wire

ECHO: Final = "echo"
#: Small, so that a peer that does not read is soon noticed; the kernel doubles it.
SEND_BUFFER_BYTES: Final = 16 * 1024
#: As on an Ethernet.
SEGMENT_BYTES: Final = 1460


class FakeProvider:
    """``async with FakeProvider() as fake:``, or :meth:`start` and :meth:`stop`; it keeps its port."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        #: Requests to count tokens: bodies and headers.
        self.counted: list[tuple[dict[str, Any], dict[str, str]]] = []
        #: The listed models: None for all that can be played, () for none.
        self.models: tuple[str, ...] | None = None
        #: Chooses the answer to a call by the call itself, for every model; None: :meth:`play` does.
        self.director: Callable[[Call], Answer] | None = None
        #: HTTP status of the list of models.
        self.list_status = 200
        #: Keys that get no list of models.
        self.revoked_keys: frozenset[str] = frozenset()
        #: The list of models waits for it.
        self.list_gate: asyncio.Event | None = None
        self._answers: dict[str, list[Answer]] = {}
        self._connections: set[Connection] = set()
        self._arrived = asyncio.Condition()
        self._stored = StoredAnswers(self._arrived)
        self._server: asyncio.Server | None = None
        self._port = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()

    async def start(self) -> None:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Set before listening: accepted sockets inherit it.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        # asyncio sets it only where the socket was made with proto=IPPROTO_TCP; without it, tokens wait 40 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sys.platform == "linux":
            # A segment of loopback (64 KiB) does not fit into the buffer: each would wait 40 ms to be acknowledged.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
        sock.bind(("127.0.0.1", self._port))
        self._port = sock.getsockname()[1]
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self._handle, self._connections), sock=sock, backlog=1024
        )

    async def stop(self) -> None:
        """Refuse new connections and abort the existing ones."""
        if self._server is not None:
            for listener in self._server.sockets:
                asyncio.get_running_loop().remove_reader(listener.fileno())
            # A connection accepted in this turn has no transport yet, and would leak it after close() (CPython 3.11).
            for _ in range(3):
                await asyncio.sleep(0)
            self._server.close()
            self._server = None
        await asyncio.gather(*(connection.abort() for connection in self._connections))
        await self._stored.stop()

    @property
    def openai_base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def anthropic_base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def ollama_host(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    @property
    def gets(self) -> list[Get]:
        """Requests to read stored answers of Responses."""
        return self._stored.gets

    @property
    def cancels(self) -> list[str]:
        """Ids of the stored answers of Responses that a client has cancelled."""
        return self._stored.cancels

    def stored(self, call: Call) -> StoredAnswer:
        """Return the stored answer of a call."""
        return next(stored for stored in self._stored.by_id.values() if stored.call is call)

    def play(self, model: str, answer: Answer, *later: Answer) -> None:
        """Set the behaviour of ``model`` from the next call on. With ``later`` answers, each call takes the next one;
        the last stays."""
        self._answers[model] = [answer, *later]

    async def wait_calls(self, count: int, *, timeout_s: float = 60) -> list[Call]:
        """Wait until there are ``count`` calls, and return all."""
        async with asyncio.timeout(timeout_s), self._arrived:
            await self._arrived.wait_for(lambda: len(self.calls) >= count)
        return self.calls

    async def wait_gets(self, count: int, *, timeout_s: float = 60) -> list[Get]:
        """Wait until there are ``count`` requests for stored answers, and return all."""
        async with asyncio.timeout(timeout_s), self._arrived:
            await self._arrived.wait_for(lambda: len(self.gets) >= count)
        return self.gets

    async def wait_cancels(self, count: int, *, timeout_s: float = 60) -> list[str]:
        """Wait until there are ``count`` cancels, and return all."""
        async with asyncio.timeout(timeout_s), self._arrived:
            await self._arrived.wait_for(lambda: len(self.cancels) >= count)
        return self.cancels

    async def _handle(self, connection: Connection, request: Request) -> None:
        if request.method == "GET":
            is_stored = "/responses/" in request.path
            await (
                self._stored.get(connection, request, _key_of(request))
                if is_stored
                else self._list(connection, request)
            )
            return
        if request.path.endswith("/cancel"):
            await self._stored.cancel(connection, request, _key_of(request))
            return
        kind = _wire_for(request.path)
        if request.path.endswith("/count_tokens"):
            body = json.loads(request.body)
            self.counted.append((body, request.headers))
            words = len(json.dumps(body["messages"]).split())
            await connection.respond(200, b'{"input_tokens":%d}' % words)
            return
        if kind is None:
            await connection.respond(404, b'{"error":"no such path"}')
            return
        try:
            body = json.loads(request.body)
            call = Call(len(self.calls) + 1, kind.name, body["model"], body, request.headers)
        except (ValueError, TypeError, KeyError):
            await connection.respond(400, b'{"error":"not a request"}')
            return
        connection.call = call
        self.calls.append(call)
        async with self._arrived:
            self._arrived.notify_all()
        answer = self._answer_for(call)
        is_stored = kind is ResponsesWire and body.get("background") is True and answer.is_storable
        if kind is ResponsesWire and not is_stored:
            body = body | {"background": False}
        wire = kind(number=call.number, request=body)
        if is_stored:
            await self._stored.create(connection, call, answer, wire, _key_of(request))
        else:
            await Play(connection, call, answer, wire).run()
        connection.done()

    def _answer_for(self, call: Call) -> Answer:
        if self.director is not None:
            return self.director(call)
        if call.model == ECHO and ECHO not in self._answers:
            return Answer(deltas=re.findall(r"\s*\S+|\s+$", call.prompt))
        answers = self._answers.get(call.model, [Answer(status=404)])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def _list(self, connection: Connection, request: Request) -> None:
        if self.list_gate is not None:
            await self.list_gate.wait()
        kind: type[Wire]
        if request.path == "/api/tags":
            kind = OllamaWire
        else:
            kind = AnthropicWire if "anthropic-version" in request.headers else OpenAIWire
        models = sorted({ECHO, *self._answers}) if self.models is None else list(self.models)
        status = 401 if _key_of(request) in self.revoked_keys else self.list_status
        listed = kind.model_list(models) if status == 200 else kind.refusal(status, "no list")
        await connection.respond(status, json.dumps(listed).encode())


def _key_of(request: Request) -> str:
    headers = request.headers
    return (
        headers.get("x-api-key") or headers.get("api-key") or headers.get("authorization", "").removeprefix("Bearer ")
    )


def _wire_for(path: str) -> type[Wire] | None:
    by_ending: dict[str, type[Wire]] = {
        "/chat/completions": OpenAIWire,
        "/responses": ResponsesWire,
        "/v1/messages": AnthropicWire,
        "/api/chat": OllamaWire,
    }
    return next((kind for ending, kind in by_ending.items() if path.endswith(ending)), None)

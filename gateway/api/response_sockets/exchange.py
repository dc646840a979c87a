"""One frame and the response to it: the way of ``POST /v1/responses``, with messages instead of a body."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final, NamedTuple

from fastapi import Request
from starlette.types import Scope
from uvicorn.protocols.utils import ClientDisconnected

from gateway.api import errors
from gateway.api.created_responses import FoundResponse, create_response, find_response
from gateway.api.previous_responses import PREFIX, check_conversation, compose_request, read_output, stream_id_of
from gateway.api.response_sockets.frames import Create, Resume
from gateway.api.response_sockets.kept_inputs import ConnectionInputs, KeptInput, continued
from gateway.api.response_sockets.outgoing import Outgoing, error_message, messages_of
from gateway.api.response_sockets.prepared import prepared_response
from gateway.auth.grants import Grant
from gateway.auth.principal import ANONYMOUS, Principal
from gateway.dialects.openai_responses.stream import ResponseEvents
from gateway.edge.acked import TRANSPORT
from gateway.edge.request_log import RequestLog, begin_request_log
from gateway.intake.body_memory import BodyShare, carry_on, release_body, run_beside_loop, take_memory
from gateway.live.subscription import Subscription
from gateway.state import GatewayState
from shared.protocol.ids import START
from shared.scopes import Scope as Right
from shared.tracing import Tracing

PATH: Final = "/v1/responses"


class Route(NamedTuple):
    """Route of a frame, for the log: that of the same request over HTTP."""

    path: str


ROUTE: Final = Route(PATH)
_RESUME_ROUTE: Final = Route(f"{PATH}/{{response_id}}")
#: Endings of responses that another one may continue.
_CONTINUABLE: Final = frozenset({"completed", "incomplete"})
#: Fields of the handshake that are of no single frame. A client that retried the handshake retries none of them.
_OF_HANDSHAKE: Final = frozenset(
    {b"idempotency-key", b"x-stainless-retry-count", b"content-length", b"upgrade", b"connection"}
)


class Exchange:
    """Answers one frame. ``stream_id``: known once the response exists. ``size``: bytes of the frame."""

    def __init__(
        self,
        gateway: GatewayState,
        caller: Principal,
        outgoing: Outgoing,
        inputs: ConnectionInputs,
        frame: Create | Resume,
        share: BodyShare | None,
    ) -> None:
        self.stream_id: str | None = None
        self.frame = frame
        self.size = len(frame.body) if isinstance(frame, Create) else 0
        self._gateway = gateway
        self._caller = caller
        self._outgoing = outgoing
        self._inputs = inputs
        self._share = share

    def release_memory(self) -> None:
        """Give back the memory that the frame took while it arrived. It takes memory again when it is its turn."""
        share, self._share = self._share, None
        if share is not None:
            share.release()

    async def run(self, handshake: Scope, tracing: Tracing) -> None:
        """Send all events of the response, or an error message. Raises :class:`ClientDisconnected`."""
        scope = _scope_of(handshake)
        scope["route"] = ROUTE if isinstance(self.frame, Create) else _RESUME_ROUTE
        request, request_log = Request(scope), begin_request_log(scope, tracing)
        request_log.principal = self._caller.id
        cut: BaseException | None = None
        try:
            with self._gateway.connections.place() as place:
                place.take(self._caller.id)
                await self._answer(request, request_log)
        except (ClientDisconnected, asyncio.CancelledError) as error:
            cut = error
            raise
        except Exception as error:  # noqa: BLE001  as an HTTP server does
            await self._refuse(request, request_log, error)
        finally:
            self.release_memory()
            release_body()
            request_log.write(scope, cut)

    async def _answer(self, request: Request, request_log: RequestLog) -> None:
        match self.frame:
            case Create(generates=False):
                self._caller.need(Right.CHAT)
                await self._prepare(self.frame)
                request_log.responded(200, [])
                return
            case Create():
                self._caller.need(Right.CHAT)
                found, after = await self._create(request, self.frame), -1
            case Resume(_, response_id, after):
                self._caller.need(Right.READ)
                found = await find_response(self._gateway, Grant.of(self._caller), stream_id_of(response_id))
        request_log.responded(200, [(b"x-stream-id", found.about.stream_id.encode())])
        await self._deliver(found, after)

    async def _create(self, request: Request, frame: Create) -> FoundResponse:
        gateway = self._gateway
        body, kept = await self._composed(frame)
        self.frame = replace(frame, body=b"")  # possibly large, and the response may be long
        created = await create_response(
            *(request, gateway, self._caller, body, frame.idempotency_key),
            previous=None if kept is None or kept.before is None else frame.previous,
        )
        del body
        about = created.about
        if not frame.stores and kept is not None:
            if created.earlier:
                kept = kept.after(created.earlier)
            self._inputs.keep(f"{PREFIX}{about.stream_id}", kept)
        return FoundResponse(about, created.submission.log_page, gateway.hub)

    async def _prepare(self, frame: Create) -> None:
        """Check a request, and keep its input for the request that continues it."""
        body, kept = await self._composed(frame)
        composed = await compose_request(self._gateway, self._caller, body)
        stream_id, frames = prepared_response(composed, frame.previous)
        if kept is not None:
            self._inputs.keep(f"{PREFIX}{stream_id}", replace(kept, has_output=False))
        await self._outgoing.send(messages_of(frames, frame.track))

    async def _composed(self, frame: Create) -> tuple[bytes, KeptInput | None]:
        """Return the body with the part of the conversation that this connection has kept, and the part to keep."""
        await self._take_memory(len(frame.body))
        before = self._inputs.find(frame.previous)
        if before is None and frame.stores and frame.generates:
            return frame.body, None
        output: list[dict[str, Any]] = []
        if before is not None and before.has_output and frame.previous is not None:
            output = await read_output(self._gateway, Grant.of(self._caller), stream_id_of(frame.previous))
        body, kept = await run_beside_loop(continued, frame.body, before, output)
        if before is not None:
            check_conversation(len(body), self._gateway.settings.max_conversation_bytes)
            await take_memory(len(body))
        return body, kept

    async def _take_memory(self, count: int) -> None:
        """Count the frame as a body, unless it was while it arrived."""
        if self._share is not None:
            carry_on(self._share)
            return
        share = self._gateway.body_memory.begin(None if self._caller is ANONYMOUS else self._caller.id)
        await share.take(count)
        share.size = count

    async def _deliver(self, found: FoundResponse, after: int) -> None:
        """Send the events. A gateway that drains lets them end: most of these clients cannot resume."""
        track, outgoing = self.frame.track, self._outgoing
        self.stream_id = found.about.stream_id
        renderer = ResponseEvents(found.about, after=after)
        renderer.resumable = False
        subscription = Subscription(found.source, self.stream_id, START, found.log_page, renderer)
        async with aclosing(subscription.chunks()) as chunks:
            async for chunk in chunks:
                await outgoing.send(messages_of(chunk, track))
                subscription.write = lambda frames: outgoing.send_now(messages_of(frames, track))
        if renderer.response.status not in _CONTINUABLE:
            self._inputs.drop(f"{PREFIX}{self.stream_id}")

    async def _refuse(self, request: Request, request_log: RequestLog, error: Exception) -> None:
        response = await errors.response_to(request, error)
        request_log.responded(response.status_code, [])
        await self._outgoing.send([error_message(response, self.frame.track)])


def request_of(handshake: Scope) -> Request:
    """Return a request that errors can be rendered for."""
    return Request(_scope_of(handshake))


def _scope_of(handshake: Scope) -> dict[str, Any]:
    """Return the scope of a frame: a request with the header fields of the handshake."""
    fields = [field for field in handshake["headers"] if field[0] not in _OF_HANDSHAKE]
    taken = {name: handshake[name] for name in ("app", "client", "server", "http_version", "root_path", TRANSPORT)}
    return {
        **taken,
        "type": "http",
        "method": "WS",
        "scheme": "http",
        "path": PATH,
        "query_string": b"",
        "headers": fields,
        "route": ROUTE,
        "path_params": {},
    }

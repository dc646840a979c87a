"""One frame and the response to it: the way of ``POST /v1/responses``, with messages instead of a body."""

import asyncio
from contextlib import aclosing
from typing import Any, Final

from fastapi import Request
from starlette.types import Scope
from uvicorn.protocols.utils import ClientDisconnected

from gateway.api import errors
from gateway.api.created_responses import FoundResponse, create_response, find_response
from gateway.api.previous_responses import stream_id_of
from gateway.api.response_sockets.frames import Create, Resume
from gateway.api.response_sockets.outgoing import Outgoing, error_message, messages_of
from gateway.auth.grants import Grant
from gateway.auth.principal import ANONYMOUS, Principal
from gateway.dialects.openai_responses.stream import ResponseEvents
from gateway.edge.headers import Field
from gateway.edge.request_log import RequestLog, begin_request_log
from gateway.intake.body_memory import BodyShare, carry_on, release_body
from gateway.live.subscription import Subscription
from gateway.state import GatewayState
from shared.protocol.ids import START
from shared.scopes import Scope as Right
from shared.tracing import Tracing

PATH: Final = "/v1/responses"


class Route:
    """Route of all frames, for the log."""

    path = PATH


ROUTE: Final = Route()
#: Fields of the handshake that are of no single frame.
_OF_HANDSHAKE: Final = frozenset({b"idempotency-key", b"content-length", b"upgrade", b"connection"})


class Exchange:
    """Answers one frame. ``stream_id``: known once the response exists. ``size``: bytes of the frame."""

    def __init__(
        self,
        gateway: GatewayState,
        caller: Principal,
        outgoing: Outgoing,
        frame: Create | Resume,
        share: BodyShare | None,
    ) -> None:
        self.stream_id: str | None = None
        self.frame = frame
        self._gateway = gateway
        self._caller = caller
        self._outgoing = outgoing
        self._share = share
        self.size = len(frame.body) if isinstance(frame, Create) else 0

    def wait_without_memory(self) -> None:
        """Give back the memory for the frame until it is its turn: others must not wait for that."""
        share, self._share = self._share, None
        if share is not None:
            share.release()

    async def run(self, handshake: Scope, tracing: Tracing) -> None:
        """Send all events of the response, or an error message. Raises :class:`ClientDisconnected`."""
        scope = _scope_of(handshake)
        request, request_log = Request(scope), begin_request_log(scope, tracing)
        request_log.principal = self._caller.id
        cut: BaseException | None = None
        try:
            with self._gateway.connections.place() as place:
                place.take(self._caller.id)
                found, after = await self._found(request)
                request_log.responded(200, _named(found))
                await self._deliver(found, after)
        except (ClientDisconnected, asyncio.CancelledError) as error:
            cut = error
            raise
        except Exception as error:  # noqa: BLE001  as an HTTP server does
            await self._refuse(request, request_log, error)
        finally:
            release_body()
            request_log.write(scope, cut)

    async def _found(self, request: Request) -> tuple[FoundResponse, int]:
        """Return the response, and the number of the last event that the client has."""
        match self.frame:
            case Create():
                return await self._created(request, self.frame), -1
            case Resume(_, response_id, after):
                self._caller.need(Right.READ)
                return await find_response(self._gateway, Grant.of(self._caller), stream_id_of(response_id)), after

    async def _created(self, request: Request, frame: Create) -> FoundResponse:
        self._caller.need(Right.CHAT)
        await self._take_memory(len(frame.body))
        settings, key = self._gateway.settings, frame.idempotency_key
        created = await create_response(
            request, self._gateway, self._caller, frame.body, key, grace_s=settings.grace_s
        )
        return FoundResponse(created.about, created.submission.log_page, self._gateway.hub)

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
        lane, outgoing = self.frame.lane, self._outgoing
        self.stream_id = found.about.stream_id
        renderer = ResponseEvents(found.about, after=after)
        renderer.resumable = False
        subscription = Subscription(found.source, self.stream_id, START, found.log_page, renderer)
        async with aclosing(subscription.chunks()) as chunks:
            async for chunk in chunks:
                await outgoing.send(messages_of(chunk, lane))
                subscription.write = lambda frames: outgoing.send_now(messages_of(frames, lane))

    async def _refuse(self, request: Request, request_log: RequestLog, error: Exception) -> None:
        response = await errors.response_to(request, error)
        request_log.responded(response.status_code, [])
        await self._outgoing.send([error_message(response, self.frame.lane)])


def request_of(handshake: Scope) -> Request:
    """Return a request that errors can be rendered for."""
    return Request(_scope_of(handshake))


def _scope_of(handshake: Scope) -> dict[str, Any]:
    """Return the scope of a frame: a request with the header fields of the handshake."""
    fields = [field for field in handshake["headers"] if field[0] not in _OF_HANDSHAKE]
    taken = {name: handshake[name] for name in ("app", "client", "server", "http_version", "root_path")}
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


def _named(found: FoundResponse) -> list[Field]:
    return [(b"x-stream-id", found.about.stream_id.encode())]

"""A subscription as an HTTP response. Knows sockets and heartbeats, no event."""

import random
from collections.abc import AsyncGenerator

from sse_starlette import EventSourceResponse

from gateway.subscription import Drained
from shared.settings import Settings

#: One newline: after ids, a blank line makes several clients dispatch an empty event (measured, docs/protocol.md).
HEARTBEAT = b": ping\n"
#: Clients of a gateway that drains come back within this time.
_SPREAD_MS = 2000


def stream_response(
    chunks: AsyncGenerator[bytes, None], settings: Settings, headers: dict[str, str] | None = None
) -> EventSourceResponse:
    """``chunks``: whole frames. A client that takes nothing for the write deadline is cut."""
    return EventSourceResponse(
        _with_retry(chunks, settings.retry_ms),
        ping=settings.heartbeat_s,
        # bytes pass through untouched; the annotation of the library knows only its own event class
        ping_message_factory=lambda: HEARTBEAT,  # type: ignore[arg-type,return-value]
        send_timeout=settings.write_deadline_s,
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


async def _with_retry(chunks: AsyncGenerator[bytes, None], retry_ms: int) -> AsyncGenerator[bytes, None]:
    """``retry:`` stands inside the first block: some clients take a block of its own for an event. A drain ends with
    another one, so that not all come back at once; what is raised then keeps the body from ending properly, after
    which fetch-based clients would believe that all is well (measured)."""
    prefix = b"retry: %d\n" % retry_ms
    try:
        async for chunk in chunks:
            yield prefix + chunk
            prefix = b""
    except Drained:
        yield b"retry: %d\n" % random.randint(retry_ms, retry_ms + _SPREAD_MS)  # noqa: S311  no secret
        raise
    finally:
        await chunks.aclose()

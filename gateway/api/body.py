"""The request body, as far as the limit."""

from fastapi import Request

from shared.errors import BodyTooLarge


async def read_body(request: Request, most_bytes: int) -> bytes:
    """Raises :class:`BodyTooLarge` as soon as that is known."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most_bytes:
        raise BodyTooLarge(f"the body has {int(declared)} bytes; the limit is {most_bytes}")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most_bytes:
            raise BodyTooLarge(f"the body has more than {most_bytes} bytes")
    return bytes(body)

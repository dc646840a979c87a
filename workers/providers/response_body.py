"""Body of a successful response, whatever client reads it."""

import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Final

from workers.providers.response import InvalidResponseError, Response

#: Most bytes that one read is decompressed to.
_MOST_BYTES: Final = 64 * 1024
_GZIP_BITS: Final = 16 + zlib.MAX_WBITS
ACCEPTED_CODINGS: Final = "gzip, deflate"
#: Any other value is no coding: some servers name a charset there.
_CODINGS: Final = frozenset({"gzip", "deflate", "br", "zstd"})


@dataclass(frozen=True, slots=True)
class ResponseBody:
    """``reads``: the bytes, decompressed. ``direct``: hands them over without a task, if the response can."""

    reads: AsyncIterator[bytes]
    direct: Response | None = None

    @classmethod
    def of(cls, response: Response) -> "ResponseBody":
        """Return the body of a response over a connection of our own."""
        coding = response.headers.get("content-encoding", "").strip().lower()
        return cls(_decompressed(response, coding)) if coding in _CODINGS else cls(response, response)


async def _decompressed(reads: AsyncIterator[bytes], coding: str) -> AsyncIterator[bytes]:
    """Yield decompressed reads. Raises OSError for invalid data, and for a coding that was not offered."""
    decompressor = _Decompressor(coding)
    async for read in reads:
        for piece in decompressor.feed(read):
            yield piece


class _Decompressor:
    def __init__(self, coding: str) -> None:
        if coding not in {"gzip", "deflate"}:
            raise InvalidResponseError
        self._is_deflate = coding == "deflate"
        self._inner: zlib._Decompress | None = None

    def feed(self, read: bytes) -> Iterator[bytes]:
        """Yield pieces of limited size."""
        try:
            while read:
                self._inner = self._inner or zlib.decompressobj(self._bits(read))
                if piece := self._inner.decompress(read, _MOST_BYTES):
                    yield piece
                read = self._inner.unconsumed_tail
                if self._inner.eof:  # another member may follow
                    read, self._inner = self._inner.unused_data, None
        except zlib.error:
            raise InvalidResponseError from None

    def _bits(self, read: bytes) -> int:
        """Return the window of zlib. ``deflate`` is a zlib stream; some servers omit its header."""
        if not self._is_deflate:
            return _GZIP_BITS
        return zlib.MAX_WBITS if read[0] & 0x0F == 8 else -zlib.MAX_WBITS

"""A TCP proxy that can be a bad network: cut, silent, slow, or broken off in the middle of a piece."""

import asyncio
import socket

from tests.chaos.link import Link, Way


class Proxy:
    """Forwards connections to ``target_port`` on loopback. It keeps its port."""

    def __init__(self) -> None:
        self.target_port = 0
        #: Added to each piece, in order.
        self.delay_s = 0.0
        #: New connections are reset at once.
        self.refuse = False
        self.refused = 0
        #: New connections fall silent in that way.
        self.silent: Way | None = None
        self.port = 0
        self.links: set[Link] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        sock = socket.socket(proto=socket.IPPROTO_TCP)
        sock.bind(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Link(self).client, sock=sock, backlog=1024)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.reset()
        await asyncio.sleep(0)

    def reset(self) -> None:
        """Send RST to both ends of every connection."""
        for link in list(self.links):
            link.reset()

    def silence(self, way: Way) -> None:
        """Keep every connection open, but forward nothing more that way, not even its end."""
        for link in self.links:
            link.silent = way

    def end_silence(self) -> None:
        """Reset the silent connections at both ends, as a kernel would after its timeouts."""
        self.silent = None
        for link in [link for link in self.links if link.silent is not None]:
            link.reset()

    def truncate(self) -> None:
        """Break every connection within its next piece towards the client."""
        for link in self.links:
            link.truncate = True

    def end_truncation(self) -> None:
        """Break no more of them, and reset the broken ones: their servers know of no end yet."""
        for link in [link for link in self.links if link.truncate]:
            link.truncate = False
            if link.silent is not None:
                link.reset()

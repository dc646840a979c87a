"""HTTP server of the fake provider. The model of a request chooses the answer."""

import itertools
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Self
from urllib.parse import unquote

from headrace_conformance.provider.recorded import Recorded, recorded
from headrace_conformance.provider.scripts import ANSWERS, Answer
from headrace_conformance.provider.wires import anthropic, openai

_LINGER_RESET: Final = struct.pack("ii", 1, 0)


class Provider:
    """``with Provider(port=9100) as provider:`` serves ``provider.url`` from threads of its own.

    ``GET /v1/models`` has the models, and ``GET /calls/TEXT`` the number of calls with that text in the body.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._server = _Server((host, port), _Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.numbers = itertools.count(1)
        self.bodies: list[bytes] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients go away in the middle of answers: that is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        if self.path.startswith("/calls/"):
            text = unquote(self.path.removeprefix("/calls/")).encode()
            calls = sum(text in body for body in list(self.server.bodies))
            self._respond(200, str(calls).encode(), "text/plain")
            return
        if self.path.endswith("/models"):
            models = [{"id": name, "object": "model"} for name in (*ANSWERS, *recorded())]
            self._respond(200, json.dumps({"object": "list", "data": models}).encode())
            return
        self._respond(404, b'{"error": {"message": "no such path"}}')

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            model = json.loads(body)["model"]
        except (ValueError, TypeError, KeyError):
            self._respond(400, b'{"error": {"message": "the body is no request"}}')
            return
        self.server.bodies.append(body)
        number = next(self.server.numbers)
        if model in recorded():
            self._replay(recorded()[model])
        elif model in ANSWERS:
            wire = anthropic if self.path.endswith("/messages") else openai
            self._play(ANSWERS[model], wire(ANSWERS[model], model, number))
        else:
            self._respond(404, b'{"error": {"message": "no such model", "code": "model_not_found"}}')

    def _play(self, answer: Answer, events: Iterator[bytes]) -> None:
        self._begin(200, "text/event-stream")
        for event in events:
            time.sleep(answer.delay_s)
            for at in range(0, len(event), 1) if answer.one_byte else (0,):
                self._chunk(event[at : at + 1] if answer.one_byte else event)
        if answer.ends == "cut":
            self._cut()
        else:
            self._chunk(b"")

    def _replay(self, response: Recorded) -> None:
        self._begin(response.status, response.content_type)
        for piece in response.pieces:
            self._chunk(piece)
            time.sleep(response.pace_s)
        if response.keeps_open:
            self.connection.recv(1)  # returns when the client leaves
        else:
            self._chunk(b"")

    def _begin(self, status: int, content_type: str) -> None:
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def _cut(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        self.connection.close()
        self.close_connection = True

    def _respond(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Requests are not logged: they have keys and prompts."""

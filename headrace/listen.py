"""The command ``headrace listen``: a receiver of webhooks for development, which prints them."""

import base64
import json
import os
import secrets
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from standardwebhooks import Webhook, WebhookVerificationError

from headrace.interrupts import raise_on_interrupt
from shared.printable import printable

_MOST_BYTES: Final = 64 * 1024 * 1024


def listen(port: int, secret: str | None) -> int:
    """Print each webhook as a line of JSON on stdout, until Ctrl-C. ``secret``: verifies the signatures; None makes
    one. Return the exit code."""
    given = secret is not None
    secret = secret or f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
    verifier = Webhook(secret)

    class Receiver(_Receiver):
        webhook = verifier

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Receiver)
    except OSError as error:
        print(f"port {port}: {error.strerror}; use another --port", file=sys.stderr)
        return 1
    url = f"http://127.0.0.1:{server.server_port}/"
    print(f"listening on {url}; start Headrace with\n  HEADRACE_WEBHOOK_URL={url}", file=sys.stderr)
    if not given:
        print(f"  HEADRACE_WEBHOOK_SECRET={secret}", file=sys.stderr)
    raise_on_interrupt()
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


class _Receiver(BaseHTTPRequestHandler):
    webhook: Webhook
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        size = int(self.headers.get("content-length") or 0)
        if size > _MOST_BYTES:
            self._reply(413)
            return
        body = self.rfile.read(size)
        try:
            event = self.webhook.verify(body, {name.lower(): value for name, value in self.headers.items()})
        except WebhookVerificationError as error:
            print(printable(f"not accepted: {error}; is HEADRACE_WEBHOOK_SECRET the same?"), file=sys.stderr)
            self._reply(401)
            return
        line = {"webhook-id": self.headers["webhook-id"], **event}
        sys.stdout.write(json.dumps(line, ensure_ascii=not _is_utf8()) + "\n")
        sys.stdout.flush()
        self._reply(204)

    def _reply(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def _is_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def secret_of_environment() -> str | None:
    """Return the first of the secrets that this environment has, or None."""
    return next(
        (part.strip() for part in os.environ.get("HEADRACE_WEBHOOK_SECRET", "").split(",") if part.strip()), None
    )

"""HTTP requests as bytes: well-formed ones, and some that two servers could read in two ways."""

import json

from tests.system import ask

#: A request that an attacker tries to pass off as another client's.
SMUGGLED = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHAT = json.dumps(ask("echo", "one two")).encode()


def post(*fields: str, body: bytes = b"", target: str = "/chat", version: str = "HTTP/1.1") -> bytes:
    lines = [f"POST {target} {version}", *fields]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


HOST = "Host: localhost"
CHUNKED = "Transfer-Encoding: chunked"
AMBIGUOUS = {
    "length and encoding": post(HOST, f"Content-Length: {len(CHAT)}", CHUNKED, body=b"0\r\n\r\n"),
    "encoding and length": post(HOST, CHUNKED, "Content-Length: 4", body=chunked(CHAT)),
    "two lengths": post(HOST, "Content-Length: 5", "Content-Length: 6", body=b"hello"),
    "the same length twice": post(HOST, "Content-Length: 5", "Content-Length: 5", body=b"hello"),
    "a list of lengths": post(HOST, "Content-Length: 5, 5", body=b"hello"),
    "a length with a sign": post(HOST, "Content-Length: +5", body=b"hello"),
    "a negative length": post(HOST, "Content-Length: -5", body=b"hello"),
    "a length in hex": post(HOST, "Content-Length: 0x5", body=b"hello"),
    "a length beyond all bounds": post(HOST, "Content-Length: " + "9" * 30, body=b"hello"),
    "a bad chunk size": post(HOST, CHUNKED, body=b"zz\r\nhello\r\n0\r\n\r\n"),
    "a signed chunk size": post(HOST, CHUNKED, body=b"+5\r\nhello\r\n0\r\n\r\n"),
    "a chunk size beyond all bounds": post(HOST, CHUNKED, body=b"f" * 17 + b"\r\nhello\r\n0\r\n\r\n"),
    "a chunk size with a bare LF": post(HOST, CHUNKED, body=b"5\nhello\r\n0\r\n\r\n"),
    "a chunk that is longer": post(HOST, CHUNKED, body=b"5\r\nhelloX\r\n0\r\n\r\n"),
    "two encodings": post(HOST, CHUNKED, "Transfer-Encoding: identity", body=chunked(CHAT)),
    "chunked as the second encoding": post(HOST, "Transfer-Encoding: identity", CHUNKED, body=chunked(CHAT)),
    "an empty encoding": post(HOST, "Transfer-Encoding:", CHUNKED, body=chunked(CHAT)),
    "an encoding twice": post(HOST, CHUNKED, CHUNKED, body=chunked(CHAT)),
    "an encoding before chunked": post(HOST, "Transfer-Encoding: gzip, chunked", body=chunked(CHAT)),
    "an encoding after chunked": post(HOST, "Transfer-Encoding: chunked, gzip", body=chunked(CHAT)),
    "an encoding that is none": post(HOST, "Transfer-Encoding: identity", body=CHAT),
    "an encoding that looks like chunked": post(HOST, "Transfer-Encoding: xchunked", body=chunked(CHAT)),
    "an encoding with a vertical tab": post(HOST, "Transfer-Encoding: \x0bchunked", body=chunked(CHAT)),
    "a space before the colon": post(HOST, "Transfer-Encoding : chunked", body=chunked(CHAT)),
    "an encoding with HTTP/1.0": post(HOST, CHUNKED, version="HTTP/1.0", body=chunked(CHAT)),
    "a folded field": post(HOST, "X-A: b", " c: d"),
    "a bare LF after the request line": b"GET /healthz HTTP/1.1\nHost: x\r\n\r\n",
    "a bare LF after a field": b"GET /healthz HTTP/1.1\r\nHost: x\nX-A: b\r\n\r\n",
    "a bare LF at the end": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\n",
    "a bare CR in a field": b"GET /healthz HTTP/1.1\r\nHost: x\rX-A: b\r\n\r\n",
    "NUL in a field": b"GET /healthz HTTP/1.1\r\nHost: x\0\r\n\r\n",
    "no Host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "HTTP/0.9 that says so": b"GET /healthz HTTP/0.9\r\nHost: x\r\n\r\n",
    "HTTP/1.2": b"GET /healthz HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/2.0 in clear": b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a tunnel": b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n",
    "a target without a path": b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target of other bytes": b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "an upgrade with a body": post(
        HOST, "Connection: Upgrade", "Upgrade: h2c", f"Content-Length: {len(CHAT)}", body=CHAT
    ),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 64,
}

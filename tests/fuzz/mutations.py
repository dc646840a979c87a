"""Mutations of inputs: of bytes, and of JSON by its structure."""

import copy
import json
import random
from collections.abc import Iterator, Sequence
from typing import Any, Final

_DEEP: Final = 3000
_BYTES: Final = (
    *(
        b"",
        b"\0",
        b"\n",
        b"\r\n",
        b"\n\n",
        b"\r",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"=",
        b"-",
        b".",
        b"/",
        b"%00",
        b"%2e",
    ),
    *(b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xc0\x80", b"\xf0\x9f\xa5\x8a", b"\\ud800", b"\\u0000"),
    *(b"null", b"true", b"{}", b"[]", b'""', b"1e999", b"NaN", b"-0", b"-1", b"0x10", b"9" * 400, b"9" * 5000),
    *(b"[" * _DEEP, b'{"a":' * _DEEP, b"A" * 70_000, b"data:", b"data: [DONE]\n\n", b"id: ", b"retry: 1\n"),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"Host: x\r\n", b" HTTP/1.1\r\n"),
)
_TEXTS: Final = (
    *("", "\0", "\n", "a" * 300, "\ud800", "\u0663", "\u2028", "\u202e", "\U0001f94a", "../..", "1", "-1", "null"),
    *("%s%n", "{}", "${x}", "data:image/png;base64,", "http://127.0.0.1/", "file:///etc/passwd", "#/$defs/a", "#"),
    *("(a|a)*b", "(?=a)b", "^(x+)+$", "[", "\\w{3,}", "text", "auto", "none", "function", "json_schema"),
)
_NUMBERS: Final = (0, -1, 1, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**30, 0.5, -0.0, 1e308, 1e-320)
_SCHEMA_NAMES: Final = (
    *("$ref", "$defs", "$id", "$anchor", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if", "then", "else"),
    *("items", "prefixItems", "properties", "patternProperties", "additionalProperties", "pattern", "enum", "const"),
    *("type", "required", "minLength", "maximum", "multipleOf", "uniqueItems", "format", "dependentSchemas"),
)


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """Return ``data`` with parts removed, repeated, moved or overwritten."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at = rng.randrange(len(changed) + 1)
        upto = min(len(changed), at + rng.choice((0, 1, 1, 2, 4, 16, 64)))
        match rng.randrange(7):
            case 0:
                changed[at:upto] = b""
            case 1:
                changed[at:upto] = bytes(changed[at:upto]) * rng.choice((2, 2, 3, 50))
            case 2:
                changed[at:at] = rng.choice(_BYTES)
            case 3:
                changed[at:upto] = rng.randbytes(rng.choice((1, 1, 2, 8)))
            case 4 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 5:
                to = rng.randrange(len(changed) + 1)
                changed[to:to] = changed[at:upto]
            case _:
                del changed[at:]
    return bytes(changed)


def mutated_json(value: Any, rng: random.Random) -> Any:
    """Return a copy of ``value`` with some of its parts replaced, removed, repeated, nested or exchanged."""
    whole = [copy.deepcopy(value)]
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        places = list(_places(whole))
        holder, key = rng.choice(places)
        other_holder, other_key = rng.choice(places)
        match rng.randrange(8):
            case 0:
                holder[key] = _any_value(rng)
            case 1 if holder is not whole:
                del holder[key]
            case 2 if isinstance(holder[key], list) and holder[key]:
                holder[key] = [*holder[key], rng.choice(holder[key])] * rng.choice((1, 1, 2, 40))
            case 3 if isinstance(holder[key], dict):
                holder[key][rng.choice((*_SCHEMA_NAMES, *_names(whole), *_TEXTS))] = _any_value(rng)
            case 4:
                holder[key] = copy.deepcopy(other_holder[other_key])
            case 5:
                holder[key] = _nested(holder[key], rng)
            case 6 if isinstance(holder[key], str):
                holder[key] = _mutated_text(holder[key], rng)
            case 7 if isinstance(holder, dict):
                holder[rng.choice(_names(whole) or [""])] = holder.pop(key)
    return whole[0]


def as_json(value: Any, rng: random.Random) -> bytes:
    """Serialise; sometimes with raw bytes changed, or in another encoding."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.9)
    data = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.02:
        return text.encode("utf-16", "surrogatepass")
    return mutated_bytes(data, rng) if rng.random() < 0.15 else data


def split_randomly(data: bytes, rng: random.Random) -> list[bytes]:
    """Cut ``data`` into pieces, as reads from a socket do."""
    if rng.random() < 0.1 and len(data) < 2000:
        return [data[at : at + 1] for at in range(len(data))]
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(6)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def any_text(samples: Sequence[str], rng: random.Random) -> str:
    return rng.choice(_TEXTS) if rng.random() < 0.1 else _mutated_text(rng.choice(samples), rng)


def _mutated_text(text: str, rng: random.Random) -> str:
    if rng.random() < 0.3:
        return rng.choice(_TEXTS) + text if rng.random() < 0.5 else text + rng.choice(_TEXTS)
    return mutated_bytes(text.encode("utf-8", "surrogatepass"), rng).decode("utf-8", "replace")


def _any_value(rng: random.Random, depth: int = 0) -> Any:
    match rng.randrange(8 if depth < 3 else 4):
        case 0:
            return rng.choice((None, True, False))
        case 1:
            return rng.choice(_NUMBERS)
        case 2 | 3:
            return rng.choice(_TEXTS)
        case 4 | 5:
            return [_any_value(rng, depth + 1) for _ in range(rng.randrange(4))]
        case _:
            names = (*_SCHEMA_NAMES, *_TEXTS)
            return {rng.choice(names): _any_value(rng, depth + 1) for _ in range(rng.randrange(4))}


def _nested(value: Any, rng: random.Random) -> Any:
    name = rng.choice((*_SCHEMA_NAMES, "a"))
    for _ in range(rng.choice((1, 2, 20, 70, 210))):
        value = [value] if rng.random() < 0.5 else {name: value}
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (container, key) of every value within ``value``, not recursive, since values may be nested deeply."""
    pending = [value]
    while pending:
        holder = pending.pop()
        for key in holder if isinstance(holder, dict) else range(len(holder)):
            yield holder, key
            if isinstance(holder[key], dict | list):
                pending.append(holder[key])


def _names(value: Any) -> list[str]:
    return [key for holder, key in _places(value) if isinstance(holder, dict)]

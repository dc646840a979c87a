"""Bounds of a request's JSON: number of values, depth, and numbers that JSON can express.

A small body can become large once it is parsed: 32 MiB of ``[]`` take gigabytes as objects, and every step over them
takes seconds. The values are therefore counted in the bytes, before anything is parsed.
"""

import math
from typing import Any, Final

#: Values of one body, about: commas and brackets outside of texts. The longest conversations have some 100,000.
MAX_VALUES: Final = 500_000
#: A stored request adds some levels, and at most one for each level of the client's. The parser accepts 200 levels.
MAX_DEPTH: Final = 96
_SEPARATORS: Final = (b",", b"[", b"{")
#: In this order: a backslash that is escaped itself does not escape the quote after it.
_ESCAPES: Final = (b"\\\\", b'\\"')
_QUOTE: Final = b'"'
#: Quotes of one value: of its name and of its text.
_MOST_QUOTES: Final = 4


def check_value_count(body: bytes) -> None:
    """Raise ValueError for a body with too many values."""
    if has_more_values(body, MAX_VALUES):
        raise ValueError(f"has more than {MAX_VALUES} values; send a smaller request")


def has_more_values(body: bytes, most: int) -> bool:
    """Return True if a JSON text has more than about ``most`` values. The text is not parsed."""
    if _separators(body) <= most:  # with those in texts: most bodies need no second look
        return False
    for escape in _ESCAPES:
        body = body.replace(escape, b"")
    if body.count(_QUOTE) > _MOST_QUOTES * (most + 1):
        return True
    # Searches instead of one pattern, which would hold the interpreter for a whole text of megabytes.
    count = end = 0
    while count <= most and (start := body.find(_QUOTE, end)) >= 0:
        count += _separators(body[end:start])
        end = body.find(_QUOTE, start + 1) + 1 or len(body)
    return count + _separators(body[end:]) > most


def check_values(value: Any) -> None:
    """Raise ValueError for values that are nested too deeply, and for numbers that JSON cannot express: NaN,
    infinity, and ``1e999``, which becomes infinity."""
    waiting = [(value, 1)]
    while waiting:
        container, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"has more than {MAX_DEPTH} levels; send a flatter one")
        for inner in container.values() if isinstance(container, dict) else container:
            if isinstance(inner, dict | list):
                waiting.append((inner, depth + 1))
            elif isinstance(inner, float) and not math.isfinite(inner):
                raise ValueError("has a number that JSON cannot express; send a finite one")


def _separators(text: bytes) -> int:
    return sum(map(text.count, _SEPARATORS))

"""Cost of the flag ``i`` in a regular expression: the compiler looks up every character of a class, one by one.

A class of all characters takes 5 ms, however short it is to write. The estimate does not depend on the exact limits
of a class: it charges for every hyphen and for every escape that may stand for many characters.
"""

import re
from typing import Final

_LAST: Final = 0x10FFFF
#: Bytes that compile in the time that one character takes to look up, and that all characters take together: those
#: beyond U+FFFF hardly have other forms, and are skipped.
_CHARACTER: Final = 3
_ALL: Final = 700_000
_WORD: Final = 75_000
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_LARGE: Final = {**dict.fromkeys("pPWDS", _ALL), "w": _WORD}
_NUMBER: Final = re.compile(r"\\[xuU]\{?([0-9A-Fa-f]*)")


def folding_cost(pattern: str) -> int:
    """Estimate the cost of case-insensitive classes, in bytes that compile in the same time."""
    ranges = pattern.count("-") * min(_greatest(pattern) * _CHARACTER, _ALL)
    return ranges + sum(_LARGE.get(kind, 0) for kind in _ESCAPE.findall(pattern))


def _greatest(pattern: str) -> int:
    """Return the greatest code point in the pattern, in itself or as an escape."""
    escaped = [min(int(digits or "ffffff", 16), _LAST) for digits in _NUMBER.findall(pattern)]
    return max(*map(ord, pattern), *escaped)

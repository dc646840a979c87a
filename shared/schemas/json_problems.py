"""Words for a body that is not JSON: the fault, its place and the remedy."""

import re
from typing import Final

_ENDS_EARLY: Final = {"list": "] missing", "object": "} missing", "string": 'closing " missing'}
#: What the parser says, and what mends it.
_REMEDIES: Final = (
    ("key must be a string", "a name needs double quotes, and no comma may follow the last one"),
    ("expected ident", "a text needs double quotes; the only bare words are true, false and null"),
    ("expected value", "no value begins here; a text needs double quotes"),
    ("trailing comma", "remove the comma before ] or }"),
    ("trailing characters", "the JSON has ended before this; remove the rest"),
    ("expected `,` or `]`", "a comma or ] is missing"),
    ("expected `,` or `}`", "a comma or } is missing"),
    ("expected `:`", "a colon is missing after the name"),
    ("control character", "write a line break in a text as \\n, a tab as \\t"),
    ("invalid escape", "write a backslash as \\\\"),
    ("invalid unicode", "send UTF-8"),
    ("hex escape", "an escape \\u needs four hex digits, and half of a pair the other half"),
    ("invalid number", "write it without + and leading zeros"),
    ("surrogate", "send UTF-8, or both halves of the pair"),
    ("recursion limit", "it is nested too deep"),
)
_PLACE: Final = re.compile(r" at line (\d+) column (\d+)$")


def json_problem(reason: str, required: tuple[str, ...]) -> str:
    """Return problem and remedy. ``reason``: the parser's. ``required``: fields that the body must have."""
    place = _PLACE.search(reason)
    line, column = (place[1], place[2]) if place else ("1", "0")
    what = reason if place is None else reason[: place.start()]
    if what.startswith("EOF") and (line, column) == ("1", "0"):
        return f"empty; send a JSON object{_example(required)}"
    where = f"at line {line}, column {column}"
    if what.startswith("EOF"):
        unclosed = _ENDS_EARLY.get(what.rpartition(" ")[2])
        question = f"; is a {unclosed}?" if unclosed else "; send all of it"
        return f"invalid JSON: it ends too early, {where}{question}"
    remedy = next((remedy for start, remedy in _REMEDIES if start in what), None)
    return f"invalid JSON {where}: {remedy or what}"


def _example(required: tuple[str, ...]) -> str:
    members = ", ".join(f'"{name}": …' for name in required)
    return f" such as {{{members}}}" if required else ""

"""Text of others, made safe for a terminal.

A terminal obeys control characters: with them a text can overwrite lines, set the clipboard or the title, and forge
output. Removed are the characters of C0 but for tab and line feed, DEL, those of C1, and those that reorder the text
around them (bidirectional embeddings, overrides and isolates). Halves of surrogate pairs cannot be printed at all.
"""

import re
from typing import Any, Final

_UNSAFE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
#: White space that may have a break. A pattern that looks for the break takes quadratic time.
_BREAKS: Final = re.compile(r"\s{2,}|[\t\n]")
REPLACEMENT: Final = "\ufffd"


def printable(text: str) -> str:
    """Return ``text`` with each unsafe character replaced by U+FFFD, so that its place can be seen. CRLF becomes a
    line feed."""
    return _UNSAFE.sub(REPLACEMENT, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Return ``text`` as :func:`printable` does, in one line."""
    return _BREAKS.sub(lambda found: found[0] if set(found[0]).isdisjoint("\t\n") else " ", printable(text))


def printable_value(value: Any) -> Any:
    """Return a JSON value, or the fields of a log line, with all its texts made printable in one line."""
    match value:
        case str():
            return one_line(value)
        case dict():
            return {printable_value(name): printable_value(member) for name, member in value.items()}
        case list() | tuple():
            return [printable_value(each) for each in value]
        case _:
            return value


def escaped_json(line: str) -> str:
    """Return the text of a JSON value without line breaks, with its unsafe characters as JSON escapes."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", line)

"""Number of characters that a model reads of a request, to estimate its tokens.

Texts count; names of members do not, nor do values that only label others. So the same conversation has the same
number in every wire format.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

#: Characters of text that cost as much as an image: providers charge 85 to 1,600 tokens for one.
IMAGE_CHARACTERS: Final = 4000
#: Shorter texts are no encoded data.
_DATA_CHARACTERS: Final = 4000
_DATA: Final = re.compile(r"(?:data:[^,]{1,100},)?[A-Za-z0-9+/=_\-\r\n]+")
#: Members that label others. A longer value is a text in spite of its name.
_LABELS: Final = frozenset(
    {
        *(
            "type",
            "role",
            "id",
            "name",
            "tool_use_id",
            "tool_call_id",
            "call_id",
            "status",
            "detail",
            "format",
            "ttl",
        ),
        *("media_type", "filename", "phase", "index"),
    }
)
_LONGEST_LABEL: Final = 128
#: Members that only their provider can read, and that no model reads.
_OPAQUE: Final = frozenset({"signature", "thought_signature"})
#: Members with the same reasoning in several forms. The longest counts.
_REASONING: Final = ("reasoning_content", "reasoning", "reasoning_text", "reasoning_details", "thinking_blocks")
#: Members of a request with the conversation and the tools. Elsewhere a short text is a setting.
_CONVERSATION: Final = ("messages", "system", "input", "instructions", "tools", "functions")
_LONGEST_SETTING: Final = 64
#: Members of a request that no model reads.
_UNREAD: Final = frozenset({"model", "metadata", "client_metadata", "user", "safety_identifier", "prompt_cache_key"})


def request_characters(body: Mapping[str, Any]) -> int:
    """Count the characters of a request in any wire format."""
    conversation = sum(characters_of(body[name]) for name in _CONVERSATION if name in body)
    others = [value for name, value in body.items() if name not in _UNREAD and name not in _CONVERSATION]
    return conversation + characters_of(others, shortest=_LONGEST_SETTING)


def characters_of(value: Any, shortest: int = 0) -> int:
    """Count the characters of all texts in a value that are longer than ``shortest``, and the worth of encoded
    data."""
    count, waiting = 0, [value]
    while waiting:
        match waiting.pop():
            case str() as text if len(text) > shortest:
                count += IMAGE_CHARACTERS if _is_data(text) else len(text)
            case dict() as members:
                kind = members.get("type")
                waiting += [inner for name, inner in members.items() if not _is_left_out(name, inner, kind)]
                forms = [characters_of(members[name], shortest) for name in _REASONING if name in members]
                count += max(forms, default=0)
            case list() as items:
                waiting += items
    return count


def _is_left_out(name: str, value: Any, kind: object) -> bool:
    if name in _LABELS:
        return isinstance(value, str) and len(value) <= _LONGEST_LABEL
    return name in _OPAQUE or name in _REASONING or (name == "encrypted_content" and kind == "reasoning")


def _is_data(text: str) -> bool:
    return len(text) > _DATA_CHARACTERS and _DATA.fullmatch(text, 0, _DATA_CHARACTERS) is not None

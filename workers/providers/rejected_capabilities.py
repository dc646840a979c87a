"""Reasons of a refusal that a client can act on by itself, found in the texts of Anthropic and its resellers.

They have no error codes. Claude Code recovers from such a refusal: it leaves out the old thinking, the marks or the
image, and sends the request again. It recognizes the texts, which never reach a client, or the names below.
"""

import re
from typing import Final

from shared.protocol.capabilities import Capability
from workers.providers.error_reports import ErrorReport

#: By name; the first that matches counts. Each is searched in a whole text, over line breaks.
_WORDS: Final[dict[Capability, str]] = {
    "thinking_signature": r"(?=.*thinking).*\b(signature|cannot be modified|invalid data)"
    r"|bound to a different conversation",
    "thinking_type:adaptive": r"(?=.*thinking).*\badaptive\b.{0,60}not supported",
    "thinking_type:enabled": r"(?=.*thinking).*\benabled\b.{0,60}not supported",
    "mid_conv_system": r"\brole\W{1,4}system\b|(?=.*cache_control).*\bsystem messages?\b",
    "cache_control_field": r"cache_control\b.*\b(not permitted|cannot be set|unknown|unrecognized|additional prop)",
    "structured_outputs_unsupported": r"output_config\.format\b.*\b(not permitted|not support)",
    "effort_unsupported": r"\b(effort parameter|output_config)\b.*\b(not permitted|not support|requires a model)",
    "document_block": r"could not process (the )?(pdf|document)|\bpdf\b.*\b(not valid|password|pages|empty)",
    "image_block": r"could not process (the )?image|\bimages? (exceeds?|dimensions|cannot be empty)",
}
_PATTERNS: Final = {name: re.compile(words, re.I | re.S) for name, words in _WORDS.items()}


def rejected_capability(report: ErrorReport) -> Capability | None:
    """Return the name of the reason that a report's texts show, or None."""
    return next((name for name, words in _PATTERNS.items() if any(map(words.search, report.texts))), None)

"""Reasons of a provider's refusal that a client can act on. Claude Code reads these names in an error's message."""

from typing import Final, Literal, get_args

Capability = Literal[
    "thinking_signature",
    "thinking_type:adaptive",
    "thinking_type:enabled",
    "mid_conv_system",
    "cache_control_field",
    "structured_outputs_unsupported",
    "effort_unsupported",
    "document_block",
    "image_block",
]
CAPABILITIES: Final[frozenset[str]] = frozenset(get_args(Capability))

"""Finish reasons of all provider families, in every spelling seen in public.

Case, separators, ``FinishReason.`` and ``FINISH_REASON_`` make no difference. A compound such as
``content_filter: SAFETY`` or ``error: 503`` is looked up whole, then by its detail, then by its prefix.
"""

import logging
from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from workers import metrics
from workers.providers.base import FinishReason
from workers.providers.errors import StreamedError, provider_failure

logger = logging.getLogger(__name__)

#: Characters of an unknown reason that are kept.
_LONGEST_WORD: Final = 64


class BadEnd(Enum):
    """Reasons of an answer that is not whole."""

    BROKEN_OFF = auto()  # the server failed in the middle
    MALFORMED_CALL = auto()  # the model called a tool in a form that the server could not read


REASONS: Final[Mapping[FinishReason | BadEnd, str]] = {
    "stop": "stop end_turn stop_sequence eos eos_token complete completed finish finished done "
    "success normal end endoftext end_of_text unspecified pause_turn",
    "length": "length max_tokens max_output_tokens model_length max_length token_limit length_limit incomplete limit "
    "model_context_window_exceeded context_window_exceeded context_length_exceeded context_length max_context_length "
    "max_new_tokens max_completion_tokens",
    "tool_calls": "tool_calls tool_call tool_use function_call function_calls tool tools",
    "content_filter": "content_filter content_filtered safety recitation blocklist "
    "prohibited_content spii image_safety image_prohibited_content image_recitation language refusal refused "
    "guardrail_intervened guardrail guardrails sensitive moderation model_armor content_policy_violation "
    "risk_control error_toxic jailbreak",
    BadEnd.BROKEN_OFF: "error abort aborted cancelled canceled insufficient_system_resource network_error "
    "internal_error internal_server_error server_error timeout time_limit timed_out failed failure engine_error "
    "engine_overloaded overloaded unavailable interrupted connection_error upstream_error "
    "repetition_truncation",
    BadEnd.MALFORMED_CALL: "malformed_function_call malformed_tool_call malformed_tool_use invalid_tool_call "
    "invalid_function_call unexpected_tool_call missing_thought_signature malformed_model_output tool_use_failed "
    "malformed_response too_many_tool_calls",
}


def _key(word: str) -> str:
    """The part of a word that counts."""
    plain = word.strip().lower().replace("_", "").replace("-", "").replace(" ", "")
    return plain.rpartition(".")[2].removeprefix("finishreason")


_BY_KEY: Final = {_key(word): kind for kind, words in REASONS.items() for word in words.split()}


def finish_reason(word: str) -> FinishReason | BadEnd | None:
    """None for a word that is not known."""
    prefix, _, detail = word.partition(":")
    return _BY_KEY.get(_key(word)) or _BY_KEY.get(_key(detail)) or _BY_KEY.get(_key(prefix))


class FinishNote:
    """The finish reason of one answer, merged from all chunks that carry one. A reason that is not known counts as
    ``stop``; ``unknown`` then holds the provider's word."""

    def __init__(self, provider: str) -> None:
        self.reason: FinishReason | None = None
        self.unknown: str | None = None
        self._provider = provider

    def note(self, word: object) -> None:
        """Merge a reason; anything but a word is passed over. Raises :class:`StreamedError` for one of an answer that
        is not whole, and :class:`ProviderError` for a malformed tool call."""
        if not isinstance(word, str) or not word.strip():
            return
        match finish_reason(word):
            case BadEnd.BROKEN_OFF:
                raise StreamedError({"code": "server_error"})
            case BadEnd.MALFORMED_CALL:
                detail = f"{self._provider} ended its answer with the reason of a malformed tool call"
                raise provider_failure("tool_call_invalid", self._provider, detail=detail)
            case None:
                if self.reason is None:
                    self.reason, self.unknown = "stop", _printable(word)
                    metrics.UNKNOWN_FINISH_REASONS.labels(self._provider).inc()
                    # The word is left out: it is free text of the provider.
                    logger.warning("unknown finish reason", extra={"provider": self._provider})
            case known:
                self.reason, self.unknown = known, None


def _printable(word: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in word.strip()[:_LONGEST_WORD])

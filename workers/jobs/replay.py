"""Compares an answer that its provider replays with the events that were written of it.

The way in which deltas were joined and cut depends on the time at which they came, so runs of one kind are compared
as a whole. Events that follow from others (values of a JSON answer, complete tool calls) are not compared.
"""

from collections.abc import Iterable, Sequence

from shared.protocol import events
from workers.providers.base import Delta, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
from workers.writing.surrogates import well_formed

#: A run: its kind (for a tool call with index, id and name), and its text or data.
Run = tuple[object, str]
_KINDS = {
    TextDelta: "text",
    events.Token: "text",
    ReasoningDelta: "reasoning",
    events.Reasoning: "reasoning",
    RefusalDelta: "refusal",
    events.Refusal: "refusal",
}


def is_replay(deltas: Sequence[Delta], log: Iterable[bytes]) -> bool:
    """Return True if the events of ``log`` were made of ``deltas``."""
    written = (events.decode(stored) for stored in log)
    return _joined(map(_run_of, deltas)) == _joined(map(_run_of, written))


def _run_of(part: Delta | events.Event) -> Run | None:
    match part:
        case TextDelta() | ReasoningDelta() | RefusalDelta() | events.Reasoning() | events.Refusal():
            return _KINDS[type(part)], part.text
        case events.Token():
            return "text", part.token
        case ToolCallDelta():
            return ("call", part.index, part.id or None, part.name or None), part.text
        case events.ToolCall(complete=False):
            return ("call", part.index, part.id or None, part.name or None), part.arguments
        case events.Extra():
            return "extra", events.encode(part).decode()
        case _:
            return None


def _joined(parts: Iterable[Run | None]) -> list[Run]:
    """Join what belongs together: texts of one kind, and fragments of one call after its first."""
    runs: list[tuple[object, list[str]]] = []
    for part in parts:
        if part is None:
            continue
        kind, text = part
        if runs and kind != "extra" and _continues(runs[-1][0], kind):
            runs[-1][1].append(text)
        else:
            runs.append((kind, [text]))
    return [(kind, well_formed("".join(texts))) for kind, texts in runs]


def _continues(before: object, kind: object) -> bool:
    if not (isinstance(before, tuple) and isinstance(kind, tuple)):
        return before == kind
    return before[1] == kind[1] and kind[2:] == (None, None)

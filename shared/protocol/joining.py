"""Joins the consecutive deltas of a log, for an answer without cursors."""

from collections.abc import Iterable

from msgspec import UNSET
from msgspec.structs import replace

from shared.protocol import events
from shared.protocol.events import Event, Reasoning, Refusal, Token, ToolCall


def join_events(stored: Iterable[bytes]) -> list[bytes]:
    """Return the events of a whole log, with consecutive deltas of one kind as one event: text, reasoning, refusal,
    and the arguments of one tool call. They give the same answer."""
    joined: list[bytes] = []
    run: list[Event] = []
    for each in stored:
        event = events.decode(each)
        if run and not _continues(run[-1], event):
            joined.append(events.encode(_join(run)))
            run.clear()
        run.append(event)
    return [*joined, events.encode(_join(run))] if run else joined


def _continues(before: Event, event: Event) -> bool:
    match before, event:
        case (Token(), Token()) | (Reasoning(), Reasoning()) | (Refusal(), Refusal()):
            return True
        case ToolCall(complete=False), ToolCall(complete=False):
            return before.index == event.index and event.id is UNSET and event.name is UNSET
    return False


def _join(run: list[Event]) -> Event:
    """Join deltas of one kind; the first says where they begin."""
    first = run[0]
    match first:
        case Token():
            parts = [event for event in run if isinstance(event, Token)]
            return replace(first, token="".join(each.token for each in parts), n=sum(each.n for each in parts))
        case Reasoning() | Refusal():
            texts = [event for event in run if isinstance(event, Reasoning | Refusal)]
            return replace(first, text="".join(each.text for each in texts), n=sum(each.n for each in texts))
        case ToolCall(complete=False):
            calls = [event for event in run if isinstance(event, ToolCall)]
            return replace(
                first, arguments="".join(each.arguments for each in calls), n=sum(each.n for each in calls)
            )
    return first

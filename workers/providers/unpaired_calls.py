"""Repair of calls without a result and of results without a call, for Anthropic's API, which refuses both.

Clients make them when they cut a history, or when a user stops an answer. A call gets a result that says so, and a
result becomes text of the user, so that nothing is lost. A conversation without these faults stays as it is.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, Final

NO_RESULT: Final = "No result was given for this call."
EARLIER_RESULT: Final = "Result of an earlier tool call:"
_CONTENT: Final = frozenset({"text", "image", "document", "search_result"})
Block = dict[str, Any]


def missing_results(ids: Iterable[str]) -> list[Block]:
    """Return a result for each call that has none."""
    return [{"type": "tool_result", "tool_use_id": id, "content": NO_RESULT} for id in ids]


def paired(messages: list[Any]) -> list[Any]:
    """Return the messages of a client's own request with a result for each call and a call for each result. The
    messages of one role in a row are one turn."""
    made: list[Any] = []
    open_calls: list[str] = []
    for role, group in groupby(messages, _role):
        turn = list(group)
        if role == "user":
            made += _answering(turn, open_calls)
            open_calls = []
            continue
        if role == "assistant":
            made += _closing(open_calls)
            open_calls = [id for block in _blocks(turn, "tool_use") if isinstance(id := block.get("id"), str)]
        made += turn
    return made + _closing(open_calls)


def _closing(open_calls: list[str]) -> list[Any]:
    return [{"role": "user", "content": missing_results(open_calls)}] if open_calls else []


def _answering(turn: list[Any], open_calls: list[str]) -> list[Any]:
    results = [block.get("tool_use_id") for block in _blocks(turn, "tool_result")]
    missing = [id for id in open_calls if id not in results]
    if missing:
        first = turn[0]
        turn = [{**first, "content": [*missing_results(missing), *_content(first)]}, *turn[1:]]
    if all(id in open_calls for id in results):
        return turn
    return [_without_orphans(message, open_calls) for message in turn]


def _without_orphans(message: Any, open_calls: list[str]) -> Any:
    """Replace results without a call by their content. It follows the other results, which have to be first."""
    blocks = _content(message)
    orphans = [block for block in blocks if _is(block, "tool_result") and block.get("tool_use_id") not in open_calls]
    if not orphans:
        return message
    kept = [block for block in blocks if block not in orphans]
    results = [block for block in kept if _is(block, "tool_result")]
    texts = [text for orphan in orphans for text in _texts(orphan)]
    return {**message, "content": [*results, *texts, *(block for block in kept if block not in results)]}


def _texts(result: Block) -> Iterator[Block]:
    content = result.get("content")
    if isinstance(content, str):
        yield {"type": "text", "text": f"{EARLIER_RESULT}\n{content}"}
        return
    yield {"type": "text", "text": EARLIER_RESULT}
    for block in content if isinstance(content, list) else ():
        is_content = isinstance(block, dict) and block.get("type") in _CONTENT
        yield block if is_content else {"type": "text", "text": json.dumps(block, ensure_ascii=False)}


def _content(message: Any) -> list[Any]:
    content = message.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content.strip() else []
    return content if isinstance(content, list) else []


def _blocks(turn: list[Any], kind: str) -> list[Block]:
    return [block for message in turn for block in _content(message) if _is(block, kind)]


def _is(block: Any, kind: str) -> bool:
    return isinstance(block, dict) and block.get("type") == kind


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, dict) else None

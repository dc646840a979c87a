"""The messages of a request that continues a chat: its new ones with those of the earlier turns, or all as given."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final, Literal

from gateway.chats.earlier_turns import EarlierTurn, Message
from shared.errors import InvalidRequest
from shared.protocol.lifecycle import Status
from shared.schemas import ChatRequest
from shared.schemas.chat import validate
from shared.schemas.messages import Message as RequestMessage

History = Literal["added", "given"]
_LONGEST_TITLE: Final = 80


@dataclass(frozen=True, slots=True)
class Composed:
    """A request of a chat with all its messages. ``earlier``: number of messages before the new ones. ``history``:
    None if there is no earlier turn."""

    request: ChatRequest
    earlier: int = 0
    history: History | None = None


def title_of(request: ChatRequest) -> str:
    """Return the beginning of the first user message."""
    first = next((each.text for each in request.messages if each.role == "user"), "")
    text = " ".join(first[: _LONGEST_TITLE * 4].split())
    return text if len(text) <= _LONGEST_TITLE else f"{text[: _LONGEST_TITLE - 1].rstrip()}…"


def composed(request: ChatRequest, turn: EarlierTurn) -> Composed:
    """Return the request with the conversation of the chat's latest turn before its messages, unless these begin
    with it. Raises :class:`InvalidRequest`."""
    new = request.model_dump(mode="json", include={"messages"}, exclude_none=True)["messages"]
    conversation = _conversation(turn, new)
    instructions, rest = _divided(new)
    earlier_instructions, before = _divided(conversation)
    if request.history is None and before:
        if _comparable(rest)[: len(_comparable(before))] == _comparable(before):
            return given(request)
        if any(message["role"] == "assistant" for message in rest):
            raise InvalidRequest(
                "messages: have answers, but do not begin with the conversation of this chat; send only the new "
                "messages, or set history: given if these are all messages, or history: add if all of them are new"
            )
    if not rest:
        raise InvalidRequest("messages: has only system messages; add a message of the user, or a tool result")
    messages = [*(instructions or earlier_instructions), *before, *rest]
    fields = request.model_dump(mode="json", exclude_none=True, exclude={"messages"})
    return Composed(validate(ChatRequest, {**fields, "messages": messages}), len(messages) - len(rest), "added")


def given(request: ChatRequest) -> Composed:
    """Return a request that has the earlier turns in its messages. The new ones are those after the last answer."""
    return Composed(request, _count_earlier(request.messages), "given")


def _conversation(turn: EarlierTurn, new: Sequence[Message]) -> list[Message]:
    """Return the messages of a turn and of those before it, with its answer. A turn that failed without output is
    left out: its messages may be the cause. A cancelled one without output is left out if the new messages repeat
    it."""
    if turn.answer:
        return [*turn.inherited, *turn.answer]
    instructions, _ = _divided(turn.inherited)
    before = turn.inherited[: max(turn.earlier, len(instructions))]
    said = _comparable(turn.inherited[len(before) :])
    is_repeated = _comparable(_divided(new)[1])[: len(said)] == said
    return before if is_repeated or turn.status == Status.FAILED else turn.inherited


def _divided(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """Return the system messages at the beginning, and the others."""
    instructions = list(takewhile(lambda message: message["role"] == "system", messages))
    return instructions, list(messages[len(instructions) :])


def _count_earlier(messages: Sequence[RequestMessage]) -> int:
    answers = [at for at, message in enumerate(messages[:-1]) if message.role == "assistant"]
    return answers[-1] + 1 if answers else 0


def _comparable(messages: Sequence[Message]) -> list[Any]:
    """Return messages in a form that is equal for equal texts, calls and results. Reasoning does not count: a client
    may not have it, and it divides an answer into several messages."""
    found: list[list[Any]] = []
    for message in messages:
        role, content = message["role"], _comparable_content(message.get("content"))
        calls = [
            (call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in message.get("tool_calls") or ()
        ]
        if role == "assistant" and found and found[-1][0] == role:
            found[-1][1] = _joined(found[-1][1], content)
            found[-1][2] += calls
        else:
            found.append([role, content, calls, message.get("tool_call_id"), message.get("name")])
    return found


def _comparable_content(content: Any) -> Any:
    match content:
        case [{"type": "text", "text": text}]:
            return text
        case None:
            return ""
    return content


def _joined(first: Any, second: Any) -> Any:
    if isinstance(first, str) and isinstance(second, str):
        return first + second
    return [first, second]

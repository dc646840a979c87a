"""One answer as a client received it, in the native words, and its differences from the ``want`` of a case."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.sse_client import Frame
from workers.providers.framing import loose_json


@dataclass(slots=True)
class CallSeen:
    """A tool call: its fragments as they came, and its complete arguments, None until they were announced."""

    id: str | None = None
    name: str | None = None
    fragments: list[str] = field(default_factory=list)
    arguments: str | None = None

    @property
    def parsed(self) -> list[Any]:
        """The name and the arguments, which stay text if they are not JSON."""
        return [self.name, loose_json((self.arguments or "").encode())]

    def faults(self) -> list[str]:
        """Contradictions between the fragments and the complete arguments."""
        if self.arguments is None:
            return []
        try:
            same = json.loads("".join(self.fragments)) == json.loads(self.arguments)
        except ValueError:
            same = False
        return [] if same else [f"fragments {self.fragments} of the call {self.name} are not {self.arguments!r}"]


@dataclass(slots=True)
class Outcome:
    """``usage`` is [input, output]; None if the provider did not report it. ``counts`` are the other counts, by
    their names in a case. ``faults``: violations of the protocol that the reader noticed."""

    text: str = ""
    reasoning: str = ""
    calls: list[CallSeen] = field(default_factory=list)
    finish: str | None = None
    reason: str | None = None
    usage: list[int] | None = None
    counts: dict[str, int] = field(default_factory=dict)
    error: str | None = None
    retryable: bool | None = None
    faults: list[str] = field(default_factory=list)

    def call(self, index: int) -> CallSeen:
        while len(self.calls) <= index:
            self.calls.append(CallSeen())
        return self.calls[index]

    @property
    def complete_calls(self) -> list[CallSeen]:
        return [call for call in self.calls if call.arguments is not None]


def native_outcome(frames: Sequence[Frame]) -> Outcome:
    """Read the frames of ``POST /chat/stream``."""
    seen = Outcome()
    errors = [frame.data for frame in frames if frame.event == "error"]
    endings = [frame.data for frame in frames if frame.event == "done"]
    for frame in frames:
        match frame.event:
            case "token":
                seen.text += frame.data["token"]
            case "reasoning":
                seen.reasoning += frame.data["text"]
            case "tool_call":
                _take_call(seen, frame.data)
    if len(endings) != 1 or frames[-1].event != "done" or len(errors) > 1:
        seen.faults.append(f"{len(endings)} endings and {len(errors)} errors")
        return seen
    seen.reason = endings[0]["reason"]
    if errors:
        seen.error, seen.retryable = errors[0]["code"], errors[0]["retryable"]
    else:
        seen.finish = endings[0]["finish_reason"]
    _take_usage(seen, endings[0]["usage"] or {"estimated": True})
    return seen


def differences(want: dict[str, Any], seen: Outcome) -> list[str]:
    """Compare as ``tests/cases/__init__.py`` documents."""
    found = [*seen.faults, *(fault for call in seen.calls for fault in call.faults())]
    expected: list[tuple[str, Any, Any]] = [("text", want.get("text", ""), seen.text)]
    if "reasoning" in want:
        expected.append(("reasoning", want["reasoning"], seen.reasoning))
    if "error" in want:
        if seen.error not in want["error"]:
            found.append(f"error: wanted one of {want['error']}, got {seen.error or seen.finish}")
        if "retryable" in want and seen.retryable is not None:
            expected.append(("retryable", want["retryable"], seen.retryable))
    else:
        expected += _good_end(want, seen)
    return found + [f"{name}: wanted {wanted!r}, got {got!r}" for name, wanted, got in expected if wanted != got]


def _good_end(want: dict[str, Any], seen: Outcome) -> list[tuple[str, Any, Any]]:
    expected: list[tuple[str, Any, Any]] = [("error", None, seen.error)]
    expected.append(("calls", want.get("calls", []), [call.parsed for call in seen.complete_calls]))
    expected.append(("finish", want.get("finish", seen.finish), seen.finish))
    if "ids" in want:
        expected.append(("ids", want["ids"], [call.id for call in seen.complete_calls]))
    if "usage" in want:
        expected.append(("usage", want["usage"], seen.usage))
    if "reason" in want:
        expected.append(("reason", want["reason"], seen.reason))
    counted = [name for name in ("cached", "cache_write", "reasoning_tokens") if name in want]
    return expected + [(name, want[name], seen.counts.get(name)) for name in counted]


def _take_call(seen: Outcome, data: dict[str, Any]) -> None:
    call = seen.call(data["index"])
    if data.get("complete"):
        if (call.id, call.name) != (data["id"], data["name"]) or call.arguments is not None:
            seen.faults.append(f"the complete call {data} does not fit its fragments")
        call.arguments = data["arguments"]
        return
    call.id = call.id or data.get("id")
    call.name = call.name or data.get("name")
    call.fragments.append(data["arguments"])


def _take_usage(seen: Outcome, usage: dict[str, Any]) -> None:
    if not usage.get("estimated"):
        seen.usage = [usage["input_tokens"], usage["output_tokens"]]
    names = {"cached": "cached_tokens", "cache_write": "cache_write_tokens", "reasoning_tokens": "reasoning_tokens"}
    seen.counts = {short: usage[name] for short, name in names.items() if name in usage}

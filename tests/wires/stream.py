"""A response as a list of events that mutations change, and its bytes."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.wires.answers import GoodAnswer

Data = dict[str, Any]


@dataclass(eq=False)
class WireEvent:
    """One event or line. ``kind``: start, reasoning, text, call, block start, block stop, reason, usage, end or
    noise. ``call``: the number of the call that it belongs to. ``raw`` replaces the JSON of ``data``."""

    kind: str
    data: Data = field(default_factory=dict)
    call: int | None = None
    name: str | None = None
    raw: str | None = None


@dataclass
class Framing:
    """Liberties of the format around the data. ``between`` are texts that may stand between two events."""

    line_end: str = "\n"
    space: str = " "
    bom: bool = False
    names: bool = True
    over_lines: bool = False
    escaped: bool = True
    between: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    last_blank_line: bool = True


@dataclass
class WireStream:
    """``answer`` is the one that must arrive. ``body_end``: the part of the bytes that is sent; ``is_reset``: the
    connection breaks after it. ``whole`` is a JSON body instead of events. ``seed`` is that of the bytes: places of
    comments and of cuts."""

    wire: str
    answer: GoodAnswer
    events: list[WireEvent]
    seed: str
    framing: Framing = field(default_factory=Framing)
    cut: str = "whole"
    body_end: float = 1.0
    is_reset: bool = False
    whole: Data | None = None

    def of_kind(self, *kinds: str) -> list[WireEvent]:
        return [event for event in self.events if event.kind in kinds]

    def first(self, kind: str) -> int:
        """Return the place of the first event of a kind; the number of events if there is no such event."""
        return next((at for at, event in enumerate(self.events) if event.kind == kind), len(self.events))

    def body(self) -> bytes:
        rng = random.Random(self.seed)
        if self.whole is not None:
            text = json.dumps(self.whole, indent=rng.choice((None, 2))) + rng.choice(("", "\n"))
        else:
            blocks = [self._block(event, rng) for event in self.events]
            text = "".join(part for block in blocks for part in (*self._between(rng), block))
        if not self.framing.last_blank_line:
            text = text.rstrip("\r\n")
        whole = (b"\xef\xbb\xbf" if self.framing.bom else b"") + text.encode()
        return whole if self.body_end == 1 else whole[: int(len(whole) * self.body_end)]

    def pieces(self) -> list[bytes]:
        """Return the bytes as they are sent, each piece by itself."""
        body, rng = self.body(), random.Random(f"{self.seed} cuts")
        match self.cut:
            case "bytes":
                return [body[at : at + 1] for at in range(len(body))]
            case "pieces":
                longest = rng.choice((4, 30, 300))
                return list(_cut(body, rng, longest))
        return [body]

    def _between(self, rng: random.Random) -> Iterator[str]:
        if self.framing.between and rng.random() < 0.3:
            yield rng.choice(self.framing.between).replace("\n", self.framing.line_end)

    def _block(self, event: WireEvent, rng: random.Random) -> str:
        data = event.raw if event.raw is not None else self._json(event.data)
        if self.wire == "ollama":
            return data + self.framing.line_end
        lines = [f"data:{self.framing.space}{line}" for line in data.split("\n")]
        if event.name is not None and self.framing.names:
            lines.insert(0, f"event:{self.framing.space}{event.name}")
        if self.framing.fields:
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(self.framing.fields))
        return self.framing.line_end.join([*lines, "", ""])

    def _json(self, data: Data) -> str:
        framing = self.framing
        if framing.over_lines and self.wire != "ollama":
            return json.dumps(data, ensure_ascii=True, indent=0)
        try:
            (text := json.dumps(data, ensure_ascii=framing.escaped, separators=(",", ":"))).encode()
        except UnicodeEncodeError:  # half of a surrogate pair can only be sent as an escape
            text = json.dumps(data, separators=(",", ":"))
        return text


def _cut(body: bytes, rng: random.Random, longest: int) -> Iterator[bytes]:
    at = 0
    while at < len(body):
        size = rng.randrange(1, longest + 1)
        yield body[at : at + size]
        at += size

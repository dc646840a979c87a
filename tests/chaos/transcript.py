"""Frames that one reader got over all its connections, checked one by one as a strict client would."""

import time
from dataclasses import dataclass, field
from typing import Any

from tests.sse_client import Frame


@dataclass(slots=True)
class Transcript:
    """Answer as one client has it. ``text``: since the last reset. ``complaints``: faults that no client may ever
    see."""

    text: str = ""
    epoch: int = 0
    seq: int = 0
    #: The frame `done`, with or without an id.
    done: Frame | None = None
    #: `data` of the frame `error`.
    error: dict[str, Any] | None = None
    #: When the answer was begun anew, and whether under the same epoch.
    resets: list[tuple[float, bool]] = field(default_factory=list)
    #: Another epoch may continue the answer.
    may_continue: bool = False
    #: Number of times that one did.
    continued: int = 0
    #: Connections that came with a cursor.
    resumes: int = 0
    #: 404 or 410 instead of a stream.
    refused: int | None = None
    #: When it was done or refused.
    ended_at: float = 0.0
    complaints: list[str] = field(default_factory=list)
    _deltas: int = 0

    @property
    def cursor(self) -> str | None:
        return f"{self.epoch}-{self.seq}" if self.epoch else None

    @property
    def has_ended(self) -> bool:
        return self.done is not None or self.refused is not None

    def take(self, frame: Frame) -> None:
        if self.done is not None:
            self.complaints.append(f"{frame.event} after done")
        if frame.id is not None:
            self._take_id(frame)
        elif frame.event not in ("queued", "waiting", "error", "done"):
            self.complaints.append(f"{frame.event} without id")
        match frame.event:
            case "token":
                self._take_token(frame)
            case "error":
                if self.error is not None:
                    self.complaints.append("two errors")
                self.error = frame.data
            case "done":
                self.done, self.ended_at = frame, time.monotonic()

    def refuse(self, status: int) -> None:
        self.refused, self.ended_at = status, time.monotonic()

    def _take_id(self, frame: Frame) -> None:
        epoch, seq = map(int, frame.at.split("-"))
        is_reset = bool(frame.data.get("reset"))
        if is_reset or not self.epoch:
            if (seq, frame.event) != (1, "start") and (seq, frame.event) not in ((1, "error"), (1, "done")):
                self.complaints.append(f"begins with {frame.event} {frame.id}, had {self.cursor}")
            if is_reset:
                self.resets.append((time.monotonic(), epoch == self.epoch))
            self.text, self.error, self._deltas = "", None, 0
        elif self.may_continue and epoch > self.epoch and seq == self.seq + 1:
            self.continued += 1
        elif (epoch, seq) != (self.epoch, self.seq + 1):
            self.complaints.append(f"{frame.event} {frame.id} after {self.cursor}")
        elif frame.event == "start":
            self.complaints.append(f"start {frame.id} in the middle")
        self.epoch, self.seq = epoch, seq

    def _take_token(self, frame: Frame) -> None:
        index, n = frame.data["token_index"], frame.data["n"]
        if index != self._deltas:
            self.complaints.append(f"token_index {index} at {frame.id}, expected {self._deltas}")
        self._deltas = index + n
        self.text += frame.data["token"]

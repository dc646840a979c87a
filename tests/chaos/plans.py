"""Plans of streams and of their readers, drawn from the seed alone: a plan never depends on timing."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tests.fakes.answer import Answer, End

#: Name of the provider that stores answers.
STORING = "storing"
_LETTERS = ("", " ", "é", "漢字", "🙂", "\n", '"', "data: x\n\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlan:
    """Plan of one stream. ``is_stored``: the provider stores the answer, so that another worker goes on with it.
    ``cancel_s``, ``delete_s``: after the answer to the POST. ``stall_s``: the provider's
    silence, once. ``grace_s``: None for the default, which is longer than any absence."""

    seed: int
    number: int
    is_stored: bool
    tokens: int
    delay_s: float
    end: End
    status: int | None
    stall_s: float
    route: Literal["/chat", "/chat/stream"]
    on_worker_lost: Literal["restart", "fail"]
    grace_s: float | None
    readers: int
    start_s: float
    cancel_s: float | None
    delete_s: float | None
    polls: int
    #: The stream is a response that is created over a WebSocket.
    is_response: bool

    @property
    def model(self) -> str:
        return f"chaos-{self.number}"

    @property
    def body(self) -> dict[str, object]:
        body: dict[str, object] = {
            "provider": STORING if self.is_stored else "openai",
            "model": self.model,
            "messages": [{"role": "user", "content": f"stream {self.number}"}],
        }
        if not self.is_stored or self.on_worker_lost == "fail":
            body["on_worker_lost"] = self.on_worker_lost
        return body if self.grace_s is None else {**body, "grace_s": self.grace_s, "on_disconnect": "cancel"}

    @property
    def response_request(self) -> dict[str, object]:
        """The request as a message of ``response.create``."""
        body = {name: value for name, value in self.body.items() if name not in ("provider", "messages")}
        if body.get("on_worker_lost") == "restart":
            del body[
                "on_worker_lost"
            ]  # a reader that was away would not notice that its numbers are of another answer
        body |= {"model": f"{self.body['provider']}/{self.model}", "input": f"stream {self.number}"}
        return body if "on_disconnect" in body else {**body, "background": True}

    def rng(self, purpose: str) -> random.Random:
        return random.Random(f"{self.seed}:{self.number}:{purpose}")

    def texts(self, call: int) -> Iterator[str]:
        """Yield the deltas of a call's answer; each has the call's number and its own."""
        rng = self.rng("letters")
        for i in range(self.tokens):
            yield f"[{call}:{i}]{rng.choice(_LETTERS)}"

    def answer(self) -> Answer:
        gate = asyncio.Event() if self.stall_s else None
        return Answer(
            deltas=self.texts,
            delay_s=self.delay_s,
            end=self.end,
            status=self.status,
            gate=gate,
            gate_after=self.tokens // 2,
        )


def draw_plan(seed: int, number: int) -> StreamPlan:
    rng = random.Random(f"{seed}:{number}:plan")
    cancel_s = rng.uniform(0, 4) if rng.random() < 0.08 else None
    return StreamPlan(
        seed=seed,
        number=number,
        is_stored=random.Random(f"{seed}:{number}:stored").random() < 0.3,
        tokens=rng.randint(20, 400),
        delay_s=rng.choice([0.0, rng.uniform(0.002, 0.03), rng.uniform(0.01, 0.03)]),
        end=rng.choices(["finish", "truncate", "reset", "hang"], [92, 3, 3, 2])[0],  # type: ignore[arg-type]
        status=rng.choice([429, 500]) if rng.random() < 0.03 else None,
        stall_s=rng.uniform(0.5, 2.0) if rng.random() < 0.1 else 0.0,
        route=rng.choice(["/chat", "/chat/stream"]),
        on_worker_lost="fail" if rng.random() < 0.1 else "restart",
        grace_s=rng.uniform(0, 1) if rng.random() < 0.05 else None,
        readers=rng.choice([1, 1, 2, 3]),
        start_s=rng.uniform(0, 1.5),
        cancel_s=cancel_s,
        delete_s=rng.uniform(0, 4) if cancel_s is None and rng.random() < 0.05 else None,
        polls=rng.choice([0, 0, 1, 4]),
        is_response=random.Random(f"{seed}:{number}:response").random() < 0.3,
    )

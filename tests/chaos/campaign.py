"""A run: streams without pause, one round of faults after the other, the judgement, the report."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.archive import complaints_about_archive
from tests.chaos.chat import Chat, Record
from tests.chaos.cluster import ClusterFaults, ClusterRig
from tests.chaos.counters import Counters
from tests.chaos.faults import Faults
from tests.chaos.leaks import complaints_at_the_end, loud_lines, open_files
from tests.chaos.ledgers import complaints_about_ledgers
from tests.chaos.numbered import NumberedTranscript
from tests.chaos.oracle import judge
from tests.chaos.plans import draw_plan
from tests.chaos.rig import BOUND_S, Rig
from tests.chaos.statuses import Statuses
from tests.chaos.trace import Fault, Round, draw_trace
from tests.chaos.webhooks import complaints_about_webhooks
from tests.previous_release import unpack_previous_release

Say = Callable[[str], None]
_UNTIL_LIVE_S = 5.0


@dataclass(slots=True)
class Result:
    """Findings of a run. ``violations``: stream or part of the system → complaints."""

    violations: dict[str, list[str]] = field(default_factory=dict)
    hits: Counter[str] = field(default_factory=Counter)
    misses: Counter[str] = field(default_factory=Counter)
    readers: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    never: list[str] = field(default_factory=list)
    loud: dict[str, int] = field(default_factory=dict)
    calls: int = 0
    webhooks: int = 0
    lags: int = 0
    took_s: float = 0.0


class Campaign:
    def __init__(self, rig: Rig, *, seed: int, streams: int, faults: int, say: Say) -> None:
        self._rig = rig
        self._faults = ClusterFaults(rig) if isinstance(rig, ClusterRig) else Faults(rig)
        self._counters = Counters(rig)
        self._statuses = Statuses(rig)
        self._trace = draw_trace(seed, faults, on_cluster=isinstance(rig, ClusterRig))
        self._plans = [draw_plan(seed, number) for number in range(streams)]
        self._say = say
        self._chats: list[Chat] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._result = Result()
        self._begun = time.monotonic()

    async def run(self) -> Result:
        rig, result = self._rig, self._result
        baseline = {g.name: open_files(g.pid, rig.broker_ports(i)) for i, g in enumerate(rig.gateways)}
        coroutines = (self._counters.follow(), self._supervise(), self._sample_statuses())
        background = [asyncio.create_task(coroutine) for coroutine in coroutines]
        for i, round_ in enumerate(self._trace):
            self._launch(len(self._plans) * (i + 1) // len(self._trace))
            await self._inject_round(i, round_)
        self._launch(len(self._plans))
        await asyncio.wait(self._tasks, timeout=BOUND_S + 30)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await self._counters.read()
        await self._statuses.aclose()
        self._note("webhooks", await complaints_about_webhooks(rig, [chat.record for chat in self._chats]))
        self._note("ledgers", await complaints_about_ledgers(rig, [chat.record for chat in self._chats]))
        self._note("archive", await complaints_about_archive(rig, [chat.record for chat in self._chats]))
        result.webhooks = len(rig.receiver.deliveries)
        await rig.http.aclose()  # its connections are clients too
        self._note("processes", await complaints_at_the_end(rig, baseline))
        self._conclude()
        result.took_s = time.monotonic() - self._begun
        return result

    def _launch(self, until: int) -> None:
        for plan in self._plans[len(self._chats) : until]:
            self._rig.fake.expect(plan)
            chat = Chat(self._rig, plan)
            self._chats.append(chat)
            self._tasks.append(asyncio.create_task(chat.run()))

    async def _inject_round(self, number: int, round_: Round) -> None:
        self._say(f"{time.monotonic() - self._begun:7.1f} s  {number + 1:3d}  {round_}")
        injections = [self._inject(fault, i * round_.gap_s) for i, fault in enumerate(round_.faults)]
        await asyncio.gather(*injections)
        await asyncio.sleep(round_.heal_s)

    async def _inject(self, fault: Fault, after_s: float) -> None:
        await asyncio.sleep(after_s)
        deadline = time.monotonic() + _UNTIL_LIVE_S
        while not (live := self._faults.is_live(fault)) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        (self._result.hits if live else self._result.misses)[fault.kind] += 1
        await self._faults.inject(fault)

    async def _supervise(self) -> None:
        """Run until cancelled. A process that dies by itself is a finding; it is started again, as by a
        supervisor."""
        while True:
            await asyncio.sleep(0.1)
            for process in self._rig.processes:
                if not process.alive and not self._rig.struck[process.name]:
                    self._rig.complaints.append(f"{process.name} exited by itself")
                    if process in self._rig.workers:
                        self._rig.history.worker_died(self._rig.workers.index(process))
                    process.start()

    async def _sample_statuses(self) -> None:
        """Run until cancelled: sample the status of every stream."""
        while True:
            await self._statuses.sample([chat.record.stream_id for chat in self._chats if chat.record.stream_id])

    def _conclude(self) -> None:
        rig, result = self._rig, self._result
        for chat in self._chats:
            record = chat.record
            self._note(f"stream {record.plan.number} {record.stream_id}", judge(record, rig.history))
            self._count(record)
        self._note("processes", rig.complaints)
        self._note("statuses", self._statuses.complaints)
        result.changes = self._statuses.changes
        self._note("tasks", [repr(t.exception()) for t in self._tasks if t.done() and t.exception()])
        result.answers, result.never = self._counters.totals, self._counters.never()
        result.loud = loud_lines(rig)
        result.calls = len(rig.fake.calls)
        result.lags = len(rig.history.lags)

    def _count(self, record: Record) -> None:
        plan, readers = record.plan, self._result.readers
        readers["streams"] += 1
        for name, happened in (
            (f"provider {plan.end}", plan.end != "finish"),
            (f"provider {plan.status}", plan.status is not None),
            ("provider stall", plan.stall_s > 0),
            ("provider stores", plan.is_stored),
            ("response over WebSocket", plan.is_response),
            ("cancel", record.cancelled),
            ("delete", record.deleted),
        ):
            if happened:
                self._result.hits[name] += 1
        for transcript in record.transcripts:
            readers["readers"] += 1
            if isinstance(transcript, NumberedTranscript):
                readers["readers over WebSocket"] += 1
                readers["resumes over WebSocket"] += transcript.resumes
            readers["resumes"] += transcript.resumes
            readers["resets"] += len(transcript.resets)
            readers["continued"] += transcript.continued
            ending = "none"
            if transcript.refused is not None:
                ending = f"status {transcript.refused}"
            elif transcript.done is not None:
                data = transcript.done.data
                ending = " ".join(filter(None, (data["finish_reason"], data["reason"])))
            self._result.endings[ending] += 1

    def _note(self, where: str, complaints: list[str]) -> None:
        if complaints:
            self._result.violations.setdefault(where, []).extend(complaints)


async def run_campaign(
    folder: Path,
    *,
    seed: int,
    streams: int,
    faults: int,
    say: Say,
    on_cluster: bool = False,
    on_postgres: bool = False,
    upgrades: bool = False,
) -> Result:
    """Start a system in ``folder``, run the campaign, and leave only the logs. ``upgrades``: each restart
    swaps a process of the previous release and one of this tree."""
    previous = unpack_previous_release(folder) if upgrades else None
    rig = (ClusterRig if on_cluster else Rig)(folder, on_postgres=on_postgres, previous=previous)
    try:
        await rig.start()
        return await Campaign(rig, seed=seed, streams=streams, faults=faults, say=say).run()
    finally:
        await rig.stop()
        assert not any(process.alive for process in rig.processes)

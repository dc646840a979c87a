"""Injection of faults: each begins, lasts and ends, and is noted in the history."""

import asyncio
import contextlib
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from redis.asyncio import Redis

from tests.chaos.archive import away
from tests.chaos.harms import harm
from tests.chaos.rig import DRAIN_S, LEASE_S, Rig
from tests.chaos.trace import Fault, Harm, Kind
from tests.system import Process
from tests.webhook_receiver import Answer

Injection = Callable[[Fault], Awaitable[None]]
#: Delay each way with which a worker still renews its leases: it waits for a quarter of one (workers/writing).
_NEAR_S: Final = LEASE_S / 10
#: A link that is cut for longer than this may cost a worker its lease.
_HARMLESS: Final = 0.2
_WORKER_KINDS: Final = {kind for kind in Kind if kind.name.startswith(("WORKER_", "PROVIDER_"))}
_GATEWAY_KINDS: Final = {kind for kind in Kind if kind.name.startswith(("GATEWAY_", "CLIENT_LINK"))}


class Faults:
    """Injects faults into ``rig``. There is one fault of Redis at a time: a second one waits for the first."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._broker = asyncio.Lock()
        self._receiver = asyncio.Lock()
        self._archive = asyncio.Lock()

    def is_live(self, fault: Fault) -> bool:
        """Return True if the fault would hit a stream now."""
        rig = self._rig
        if fault.kind in _WORKER_KINDS:
            return rig.history.open_calls(fault.target) > 0
        if fault.kind in _GATEWAY_KINDS:
            return rig.reading[fault.target] > 0
        return rig.history.open_calls() > 0

    async def inject(self, fault: Fault) -> None:
        """Inject a fault; returns at its end."""
        inject: Injection = getattr(self, f"_{fault.kind.name.lower()}")
        await inject(fault)

    # --- processes

    async def _worker_kill(self, fault: Fault) -> None:
        with self._rig.history.worker_is_out(fault.target):
            await self._kill(self._rig.workers[fault.target], fault)

    async def _worker_stop(self, fault: Fault) -> None:
        with self._rig.history.worker_is_out(fault.target):
            await self._stop_and_continue(self._rig.workers[fault.target], fault)

    async def _worker_blink(self, fault: Fault) -> None:
        with self._rig.history.provider_disturbed(fault.target):
            await self._stop_and_continue(self._rig.workers[fault.target], fault)

    async def _worker_leave(self, fault: Fault) -> None:
        with self._rig.history.worker_is_out(fault.target):
            await self._leave(self._rig.workers[fault.target], fault)

    async def _gateway_kill(self, fault: Fault) -> None:
        await self._kill(self._rig.gateways[fault.target], fault)

    async def _gateway_stop(self, fault: Fault) -> None:
        await self._stop_and_continue(self._rig.gateways[fault.target], fault)

    _worker_leave_now = _worker_leave
    _gateway_blink = _gateway_stop

    async def _gateway_leave(self, fault: Fault) -> None:
        await self._leave(self._rig.gateways[fault.target], fault)

    async def _kill(self, process: Process, fault: Fault) -> None:
        self._rig.struck[process.name] += 1
        process.stop()
        await asyncio.sleep(fault.lasts * LEASE_S)
        self._start_again(process)

    async def _stop_and_continue(self, process: Process, fault: Fault) -> None:
        process.signal(signal.SIGSTOP)
        await asyncio.sleep(fault.lasts * LEASE_S)
        process.signal(signal.SIGCONT)

    async def _leave(self, process: Process, fault: Fault) -> None:
        self._rig.struck[process.name] += 1
        process.signal(signal.SIGTERM)
        if fault.kind is Kind.WORKER_LEAVE_NOW:
            await asyncio.sleep(0.3)
            process.signal(signal.SIGTERM)
        deadline = time.monotonic() + DRAIN_S + 20
        while process.alive and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        if process.alive:
            process.stop()
            self._rig.complaints.append(f"{process.name} did not leave within {DRAIN_S} + 20 s of SIGTERM")
        self._start_again(process)

    # --- the receiver of webhooks

    async def _receiver_kill(self, fault: Fault) -> None:
        async with self._receiver:
            await self._rig.receiver.stop()
            await asyncio.sleep(fault.lasts * LEASE_S)
            await self._rig.receiver.start()

    async def _receiver_fail(self, fault: Fault) -> None:
        async def fail(_: web.Request) -> web.StreamResponse:
            return web.Response(status=503)

        await self._answer(fail, fault)

    async def _receiver_hang(self, fault: Fault) -> None:
        async def hang(_: web.Request) -> web.StreamResponse:
            await asyncio.sleep(60)
            return web.Response()

        await self._answer(hang, fault)

    async def _answer(self, answer: Answer, fault: Fault) -> None:
        async with self._receiver:
            self._rig.receiver.answer = answer
            await asyncio.sleep(fault.lasts * LEASE_S)
            self._rig.receiver.answer = None

    # --- the archive

    async def _archive_away(self, fault: Fault) -> None:
        async with self._archive, away(self._rig.database):
            await asyncio.sleep(fault.lasts * LEASE_S)

    def _start_again(self, process: Process) -> None:
        self._rig.struck[process.name] -= 1
        if not process.alive and not self._rig.struck[process.name]:
            process.start()

    # --- the broker

    async def _broker_restart(self, fault: Fault) -> None:
        async with self._only_fault():
            self._rig.broker.kill()
            await asyncio.sleep(fault.lasts * LEASE_S)
            await self._rig.broker.start()

    async def _broker_empty(self, fault: Fault) -> None:
        async with self._only_fault():
            self._rig.broker.kill()
            self._rig.history.lost()
            shutil.rmtree(self._rig.broker.folder / "appendonlydir")
            await asyncio.sleep(fault.lasts * LEASE_S)
            await self._rig.broker.start()

    async def _broker_rewind(self, fault: Fault) -> None:
        async with self._set_back():
            await asyncio.sleep(fault.lasts * LEASE_S / 2)

    async def _worker_kill_rewind(self, fault: Fault) -> None:
        """Afterwards streams that were taken over meanwhile have an epoch that Redis has lost."""
        async with self._set_back():
            await self._worker_kill(fault)

    @asynccontextmanager
    async def _set_back(self) -> AsyncIterator[None]:
        """Simulate a failover to a replica that is behind: data acknowledged meanwhile is lost."""
        broker = self._rig.broker
        file, older = broker.folder / "appendonlydir", broker.folder / "older"
        async with self._only_fault():
            shutil.copytree(file, older)
            yield
            broker.kill()
            self._rig.history.lost()
            shutil.rmtree(file)
            older.rename(file)
            await broker.start()

    async def _broker_freeze(self, fault: Fault) -> None:
        async with self._only_fault():
            self._rig.broker.freeze()
            await asyncio.sleep(fault.lasts * LEASE_S)
            self._rig.broker.thaw()

    async def _broker_full(self, fault: Fault) -> None:
        async with self._broker_client() as client:
            await client.config_set("maxmemory", 1)
            await asyncio.sleep(fault.lasts * LEASE_S)
            await client.config_set("maxmemory", 0)

    async def _flush_all(self, _: Fault) -> None:
        async with self._broker_client() as client:
            self._rig.history.lost()
            await client.flushall()

    async def _script_flush(self, _: Fault) -> None:
        async with self._broker_client() as client:
            await client.script_flush()

    async def _client_kill(self, _: Fault) -> None:
        async with self._broker_client() as client:
            for kind in ("normal", "pubsub"):
                await client.client_kill_filter(_type=kind, skipme=True)

    @asynccontextmanager
    async def _only_fault(self) -> AsyncIterator[None]:
        async with self._broker:
            with self._rig.history.broker_outage():
                yield

    @asynccontextmanager
    async def _broker_client(self) -> AsyncIterator[Redis]:
        async with self._only_fault(), self._rig.broker.client() as client:
            yield client

    # --- wires

    async def _client_link(self, fault: Fault) -> None:
        await harm(self._rig.clients[fault.target], fault)

    async def _gateway_link(self, fault: Fault) -> None:
        await harm(self._rig.gateway_links[fault.target], fault)

    async def _worker_link(self, fault: Fault) -> None:
        brief = fault.harm is Harm.REFUSE and fault.lasts < _HARMLESS
        near = fault.harm is Harm.DELAY and fault.delay_s < _NEAR_S
        harmless = brief or near or fault.harm in (Harm.RESET, Harm.TRUNCATE)
        out = self._rig.history.worker_is_out(fault.target)
        with contextlib.nullcontext() if harmless else out:
            await harm(self._rig.worker_links[fault.target], fault)

    async def _provider_link(self, fault: Fault) -> None:
        with self._rig.history.provider_disturbed(fault.target):
            await harm(self._rig.provider_links[fault.target], fault)

"""Delivers webhooks that are due, beside the streams of this worker.

A worker takes ids from the queue at the desk, sends their messages, and notes in the states of the streams what
became of them (``deliver.lua``). What it leaves unfinished is due again after a while.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from shared.broker.client import REDIS_ERRORS, Client, run_commands, run_script
from shared.broker.due_queues import put_off, remove
from shared.broker.keys import DELIVERIES, state_key
from shared.broker.scripts import Delivery, StreamScripts
from shared.cancellation import cancel_all
from shared.errors import BrokerUnavailable, ContentUnreadable
from shared.polling import next_poll
from shared.settings import Settings
from workers import metrics
from workers.webhooks.message import message_of
from workers.webhooks.sender import Failure, Sender

logger = logging.getLogger(__name__)

_MOST_AT_ONCE: Final = 64
#: Of one host, so that a slow one does not take all places.
_MOST_OF_HOST: Final = 16
_EVERY_S: Final = 1.0
#: From one try to the next: the first, and how the others grow.
_FIRST_WAIT_S: Final = 5.0
_GROWTH: Final = 4
_LONGEST_WAIT_S: Final = 3600.0
_JITTER: Final = 0.2
#: Time for all of a delivery but its POST.
_MARGIN_S: Final = 30.0
#: Time for deliveries to end when the worker does.
_CLOSE_S: Final = 3.0
_OWED: Final = ("webhook", "webhook_by", "undelivered", "delivery_failures", "idempotency")


class Deliveries:
    """All deliveries of one worker."""

    def __init__(self, client: Client, scripts: StreamScripts, settings: Settings) -> None:
        self._client = client
        self._scripts = scripts
        self._settings = settings
        self._sender = Sender(settings.allowed_webhook_hosts, settings.webhook_secret, settings.webhook_timeout_s)
        self._lease_ms = round((settings.webhook_timeout_s + _MARGIN_S) * 1000)
        self._tasks = set[asyncio.Task[None]]()
        self._hosts = Counter[str]()
        self._wanted = asyncio.Event()

    def wake(self) -> None:
        """Look for webhooks that are due at once."""
        self._wanted.set()

    async def run(self) -> None:
        """Run until cancelled."""
        try:
            while True:
                self._wanted.clear()
                taken = 0
                if room := _MOST_AT_ONCE - len(self._tasks):
                    with suppress(BrokerUnavailable):
                        taken = await self._take(room)
                if not room or taken < room:
                    await self._next_look()
        finally:
            if self._tasks:  # those that are cut off are sent once more
                await asyncio.wait(self._tasks, timeout=_CLOSE_S)
            await cancel_all(list(self._tasks))
            await self._sender.aclose()

    async def _take(self, room: int) -> int:
        ids = await run_script(self._client, self._scripts.desk.take_due(DELIVERIES, room, self._lease_ms))
        for stream_id in ids:
            task = asyncio.create_task(self._deliver(stream_id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return len(ids)

    async def _next_look(self) -> None:
        """Wait for the next second, or until there is something to do."""
        next_poll(_EVERY_S).add_done_callback(lambda _: self._wanted.set())
        await self._wanted.wait()

    async def _deliver(self, stream_id: str) -> None:
        try:
            await self._send_one(stream_id)
        except (*REDIS_ERRORS, BrokerUnavailable) as error:  # it is due again after the lease
            logger.debug("webhook not delivered", extra={"stream_id": stream_id, "error": type(error).__name__})

    async def _send_one(self, stream_id: str) -> None:
        (values,) = await run_commands(self._client, [("HMGET", state_key(stream_id), *_OWED)])
        url, by, undelivered, failures, digest = ((value or b"").decode() for value in values)
        if not undelivered:  # delivered by another, or deleted
            await remove(self._client, DELIVERIES, [stream_id])
            return
        host = urlsplit(url).netloc
        if self._hosts[host] >= _MOST_OF_HOST:
            await put_off(self._client, DELIVERIES, [stream_id], _now_ms() + round(_EVERY_S * 1000))
            return
        self._hosts[host] += 1
        begun = time.monotonic()
        try:
            failure = await self._post(stream_id, url, is_trusted=by != "request")
        finally:
            self._hosts[host] -= 1
            if not self._hosts[host]:
                del self._hosts[host]
        metrics.WEBHOOK.observe(time.monotonic() - begun)
        await self._note(stream_id, digest or None, undelivered, int(failures or 0), failure, host)

    async def _post(self, stream_id: str, url: str, *, is_trusted: bool) -> Failure | None:
        try:
            message = await message_of(self._client, self._scripts, stream_id, self._settings.webhook_payload)
        except ContentUnreadable:
            return Failure("HEADRACE_CONTENT_KEYS lacks the key of this stream")
        if message is None:
            return Failure("the stream is gone", is_final=True)
        try:
            return await self._sender.send(url, message, is_trusted=is_trusted)
        except Exception as error:  # noqa: BLE001  a fault of ours: without an outcome it would be sent for ever
            # Without the text, which may have the URL.
            logger.error("webhook not sent", extra={"stream_id": stream_id, "error": type(error).__name__})  # noqa: TRY400
            return Failure(f"not sent: {type(error).__name__}")

    async def _note(
        self, stream_id: str, digest: str | None, undelivered: str, failures: int, failure: Failure | None, host: str
    ) -> None:
        about = {"stream_id": stream_id, "host": host}
        if failure is None:
            await self._set(stream_id, digest, Delivery.DELIVERED, undelivered)
            await remove(self._client, DELIVERIES, [stream_id])
            logger.info("webhook delivered", extra={**about, "tries": failures + 1})
            return
        wait_s = max(failure.retry_after_s, _wait_s(failures))
        is_last = (
            failure.is_final or _now_ms() + wait_s * 1000 > int(undelivered) + self._settings.webhook_retry_s * 1000
        )
        if is_last:
            await self._set(stream_id, digest, Delivery.GIVEN_UP, undelivered, failure.detail)
            await remove(self._client, DELIVERIES, [stream_id])
            logger.error("webhook given up", extra={**about, "tries": failures + 1, "detail": failure.detail})
            return
        wait_ms = round(wait_s * 1000)
        await self._set(stream_id, digest, Delivery.FAILED, undelivered, failure.detail, wait_ms)
        await put_off(self._client, DELIVERIES, [stream_id], _now_ms() + wait_ms)
        logger.warning(
            "webhook failed",
            extra={**about, "tries": failures + 1, "detail": failure.detail, "again_in_s": round(wait_s)},
        )

    async def _set(
        self,
        stream_id: str,
        digest: str | None,
        outcome: Delivery,
        undelivered: str,
        detail: str = "",
        again_ms: int = 0,
    ) -> None:
        metrics.WEBHOOKS.labels(outcome).inc()
        call = self._scripts.deliver(stream_id, digest, outcome, undelivered, detail=detail, again_ms=again_ms)
        await run_script(self._client, call)


def _wait_s(failures: int) -> float:
    """Return the wait before the next try, after so many failures before this one."""
    wait_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * float(_GROWTH ** min(failures, 10)))
    return wait_s * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311  no secret


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

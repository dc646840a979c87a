"""The streams a worker holds: their leases, renewed together, and the words that reach them from outside."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import aclosing, contextmanager

from shared.broker.client import REDIS_ERRORS, run_scripts
from shared.broker.keys import worker_channel
from shared.broker.pipeline_connection import PipelineConnection, listen
from shared.broker.scripts import StreamScripts
from shared.errors import BrokerUnavailable
from shared.settings import Settings
from workers import metrics
from workers.writing.writer import HANDOVER, StreamWriter

logger = logging.getLogger(__name__)

#: How long an ended stream's events are kept, then looked at once more (design §4 rule 6).
LINGER_S = 10.0


class Leases:
    """``line`` is used for nothing but renewals."""

    def __init__(self, line: PipelineConnection, scripts: StreamScripts, settings: Settings, worker_id: str) -> None:
        self._line = line
        self._redis_url = settings.redis_url
        self._scripts = scripts
        self._interval_s = settings.lease_s / 3
        #: With half of it to spare: Redis' clock and ours began at different moments.
        self._healed_for_s = settings.retention_s / 2
        self._channel = worker_channel(worker_id)
        self._writers: dict[str, StreamWriter] = {}
        self._lingering: dict[StreamWriter, float] = {}  # ended, at this time

    @contextmanager
    def hold(self, writer: StreamWriter) -> Iterator[None]:
        """Renew the writer's lease while inside, and keep its events for a while after."""
        stream_id = writer.holder.stream_id
        self._writers[stream_id] = writer
        metrics.STREAMS.inc()
        try:
            yield
        finally:
            metrics.STREAMS.dec()
            if self._writers.get(stream_id) is writer:
                del self._writers[stream_id]
        if writer.is_written:
            self._lingering[writer] = asyncio.get_running_loop().time()

    def __len__(self) -> int:
        """Streams held."""
        return len(self._writers)

    def hand_over(self) -> None:
        """Stop every stream, for others to take."""
        for writer in list(self._writers.values()):
            writer.stop(HANDOVER)

    async def renew(self) -> None:
        """For ever, three times in each lease, all streams in one pipeline; sooner where nobody answered."""
        pause_s = self._interval_s
        while True:
            await asyncio.sleep(pause_s)
            self._forget_what_may_expire()
            writers, ended = list(self._writers.values()), dict(self._lingering)
            calls = [self._scripts.renew(writer.holder) for writer in (*writers, *ended)]
            answers = await run_scripts(self._line, calls) if calls else []
            unanswered = any(isinstance(answer, BrokerUnavailable) for answer in answers)
            pause_s = self._interval_s / 10 if unanswered else self._interval_s
            for writer, answer in zip(writers, answers[: len(writers)], strict=True):
                writer.settle_renewal(answer)
            now = asyncio.get_running_loop().time()
            for (writer, ended_at), answer in zip(ended.items(), answers[len(writers) :], strict=True):
                if writer.check(answer) and now > ended_at + LINGER_S and writer.is_settled:
                    self._lingering.pop(writer, None)

    def _forget_what_may_expire(self) -> None:
        """A stream past its retention is missing too, and not for us to heal."""
        since = asyncio.get_running_loop().time() - self._healed_for_s
        for writer in [writer for writer, ended_at in self._lingering.items() if ended_at < since]:
            del self._lingering[writer]

    async def listen(self) -> None:
        """For ever: `cancel <id>` and `room <id>`, in milliseconds. What is missed stands in the state too."""
        while True:
            try:
                async with aclosing(listen(self._redis_url, self._channel)) as batches:
                    async for batch in batches:
                        for message in batch:
                            self._handle(message.decode())
            except REDIS_ERRORS as error:
                logger.debug("the control channel broke: %s", type(error).__name__)
                await asyncio.sleep(0.2)

    def _handle(self, message: str) -> None:
        word, _, stream_id = message.partition(" ")
        writer = self._writers.get(stream_id)
        if writer is None:
            return
        if word == "cancel":
            writer.stop("cancelled")
        elif word == "room":
            writer.room()

"""Compares the memory of Redis with the time for which answers are kept, by the formula of docs/scaling.md.

Answers that do not fit are dropped before their time (shared/broker/dropping.py), which surprises whoever counts on
the time.
"""

import logging
from dataclasses import dataclass
from typing import Final

from shared.broker.client import Client
from shared.broker.dropping import PRESSURE, read_memory_use
from shared.errors import BrokerUnavailable

logger = logging.getLogger(__name__)

#: Bytes of a kept answer of 500 tokens: ``redis_bytes_after_the_end`` of bench/capacity.json.
ANSWER_TOKENS: Final = 500
ANSWER_BYTES: Final = 1052 + 7.5 * ANSWER_TOKENS
#: Fewer answers a second than these fill the memory of a system with few users.
_FEW_PER_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class RetentionFit:
    """Answers that fit into ``limit`` bytes, of which each is kept for ``retention_s``."""

    limit: int
    retention_s: float

    @property
    def answers(self) -> int:
        return int(self.limit * PRESSURE / ANSWER_BYTES)

    @property
    def per_s(self) -> float:
        return self.answers / self.retention_s

    @property
    def is_small(self) -> bool:
        return self.per_s < _FEW_PER_S

    def __str__(self) -> str:
        fits = f"maxmemory {self.limit / 1e6:,.0f} MB keeps about {self.answers:,} answers of {ANSWER_TOKENS} tokens"
        return f"{fits}, {self.per_s:.2g} a second for HEADRACE_RETENTION_S={self.retention_s:.0f}"

    @property
    def advice(self) -> str:
        """The remedy if it is small."""
        needed = ANSWER_BYTES * _FEW_PER_S * self.retention_s / PRESSURE
        return (
            f"beyond that the oldest are dropped early; for {_FEW_PER_S:.0f} a second set maxmemory to "
            f"{needed / 1e6:,.0f} MB, or HEADRACE_RETENTION_S to {self.answers / _FEW_PER_S:.0f}"
        )


async def read_retention_fit(client: Client, retention_s: float) -> RetentionFit | None:
    """Read the limits of all servers. Return None if one has none. Raises :class:`BrokerUnavailable`."""
    limits = [memory.limit for memory in (await read_memory_use(client)).values()]
    return RetentionFit(sum(limits), retention_s) if all(limits) else None


async def warn_if_small(client: Client, retention_s: float) -> None:
    """Log a warning if few answers fit."""
    try:
        fit = await read_retention_fit(client, retention_s)
    except BrokerUnavailable:  # a start does not depend on it
        return
    if fit is not None and fit.is_small:
        logger.warning("memory small for retention", extra={"detail": f"{fit}: {fit.advice}"})

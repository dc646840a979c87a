"""Filter for dialects that cannot take anything back: drops replayed events, also across a new epoch.

A process that ends a stream without holding its lease copies the answer so far into an epoch of its own. Readers see
that as a reset, followed by the same events. The filter recognises them by a running digest, so it stores no events.
"""

import hashlib

from gateway.live.batch import Batch
from shared.protocol import events


class ReplayFilter:
    def __init__(self) -> None:
        self._digest = hashlib.blake2b()  # of the events that the client has
        self._count = 0
        self._replayed = hashlib.blake2b()  # of the events that came again after the last reset
        self._to_replay = 0

    def take(self, batch: Batch) -> list[bytes] | None:
        """Return the events of ``batch`` that are new to the client. None: events that the client has received are no
        longer part of the stream."""
        if batch.reset:
            self._replayed, self._to_replay = hashlib.blake2b(), self._count
        new = []
        for at, stored in batch.events:
            if not self._to_replay or not at:
                self._digest.update(stored)
                self._count += 1
                new.append(stored)
            elif not self._is_replay(stored):
                return None
        return new

    def _is_replay(self, stored: bytes) -> bool:
        """Return False if ``stored`` proves that the client received different events. The last replayed event
        compares the digests."""
        self._replayed.update(stored)
        self._to_replay -= 1
        if self._to_replay:
            return not events.is_done(stored)
        return self._replayed.digest() == self._digest.digest()

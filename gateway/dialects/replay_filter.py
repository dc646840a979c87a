"""For dialects that cannot take anything back: what a client has not had yet, also over a new epoch.

Whoever ends a stream that it does not hold copies the answer so far into an epoch of its own (design §4 rule 4). To
readers that is a reset, after which the same events come again. They are recognised by a running digest, so that
nothing has to be kept.
"""

import hashlib

from gateway.live.batch import Batch
from shared.protocol import events


class ReplayFilter:
    def __init__(self) -> None:
        self._digest = hashlib.blake2b()
        self._count = 0
        self._repeated = hashlib.blake2b()
        self._to_repeat = 0

    def take(self, run: Batch) -> list[bytes] | None:
        """The events of ``run`` that are new to the client; None where what it has had does not stand any more."""
        if run.reset:
            self._repeated, self._to_repeat = hashlib.blake2b(), self._count
        new = []
        for at, stored in run.events:
            if not self._to_repeat or not at:
                self._digest.update(stored)
                self._count += 1
                new.append(stored)
            elif not self._repeats(stored):
                return None
        return new

    def _repeats(self, stored: bytes) -> bool:
        """Whether, as far as that can be told, the client has had this event before."""
        self._repeated.update(stored)
        self._to_repeat -= 1
        if self._to_repeat:
            return not events.is_done(stored)
        return self._repeated.digest() == self._digest.digest()

"""Rendezvous hashing: a stable choice among names for each prefix, in proportion to their weights.

A name that is gone moves only the prefixes that preferred it.
"""

import hashlib
import math
import random


def rank(name: str, prefix: str | None, weight: float = 1) -> float:
    """Return a name's rank for one prefix: greater is preferred. Without a prefix, the rank is random."""
    if prefix is None:
        chance = random.random()  # noqa: S311  no secret
    else:
        digest = hashlib.sha256(f"{prefix} {name}".encode()).digest()
        chance = (int.from_bytes(digest[:8], "big") + 1) / (2**64 + 2)
    return -weight / math.log(chance or 0.5)

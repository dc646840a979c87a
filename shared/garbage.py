"""Garbage collector settings for a serving process."""

import gc
from typing import Final

#: New containers between two collections of the youngest generation. A few dozen events reach the default, 700; each
#: collection then finds almost nothing (7 % of a gateway's time, bench/NOTES.md).
_YOUNG: Final = 50_000


def hold_garbage_collector() -> None:
    """Disable the collector during imports, which create no garbage; collections would cost a fifth of a start.

    Call :func:`settle_garbage_collector` soon afterwards.
    """
    gc.disable()


def settle_garbage_collector() -> None:
    """Enable the collector after the imports, and exempt all objects that exist by then."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 50)
    gc.enable()

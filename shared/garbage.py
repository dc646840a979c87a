"""Python's collector of cyclic garbage, set for a process that serves."""

import gc
from typing import Final

#: New containers between two collections of the young; the default, 700, is reached by a few dozen events, and each
#: collection then finds next to nothing (7 % of a gateway's time, bench/NOTES.md).
_YOUNG: Final = 50_000


def hold_garbage_collector() -> None:
    """To be called before everything is imported: nothing of that is garbage, and to look costs a fifth of a
    start. Until :func:`settle_garbage_collector`, which may not be long."""
    gc.disable()


def settle_garbage_collector() -> None:
    """To be called once everything is imported: what is there stays, and is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 50)
    gc.enable()

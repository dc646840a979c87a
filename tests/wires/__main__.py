"""Run many generated streams, at the reading layer or through a whole system; the exit code is 1 for a fault."""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

import uvloop

from tests.system import System
from tests.wires.running import failures, shrunk
from tests.wires.through_system import SETTINGS, failures_of_system

#: Streams that one process reads between two reports.
_BATCH: Final = 1000


def _read_batch(seed: int, numbers: Sequence[int]) -> list[str]:
    async def run() -> list[str]:
        return [await shrunk(failure) for failure in await failures(seed, numbers)]

    return uvloop.run(run())


def _at_reading_layer(seed: int, count: int) -> list[str]:
    batches = [range(at, min(at + _BATCH, count)) for at in range(0, count, _BATCH)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return list(chain.from_iterable(pool.map(partial(_read_batch, seed), batches)))


async def _through_system(seed: int, count: int) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        system = System(Path(folder), gateways=1, workers=1, **SETTINGS)
        try:
            await system.start()
            return await failures_of_system(system, seed, range(count))
        finally:
            await system.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.wires", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--streams", type=int, default=0, help="streams at the reading layer")
    parser.add_argument("--system", type=int, default=0, help="streams through a whole system")
    parser.add_argument("--number", type=int, help="only this stream of the seed, at the reading layer")
    options = parser.parse_args()
    began = time.monotonic()
    found = _read_batch(options.seed, [options.number]) if options.number is not None else []
    if options.streams:
        found += _at_reading_layer(options.seed, options.streams)
    if options.system:
        found += asyncio.run(_through_system(options.seed, options.system))
    print("\n\n".join(found[:20]))
    seconds = time.monotonic() - began
    print(f"{options.streams} streams read, {options.system} through a system, {len(found)} faults, {seconds:.0f} s")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()

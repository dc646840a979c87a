"""Faults of a connection."""

import asyncio

from tests.chaos.proxy import Proxy
from tests.chaos.rig import LEASE_S
from tests.chaos.trace import Fault, Harm


async def harm(proxy: Proxy, fault: Fault) -> None:
    """Inject a network fault; returns when new connections work again. Connections that were cut stay cut."""
    lasts_s = fault.lasts * LEASE_S
    match fault.harm:
        case Harm.RESET:
            proxy.reset()
        case Harm.TRUNCATE:
            proxy.truncate()
            await asyncio.sleep(lasts_s)
            proxy.end_truncation()
        case Harm.REFUSE:
            proxy.refuse = True
            proxy.reset()
            await asyncio.sleep(lasts_s)
            proxy.refuse = False
        case Harm.DELAY:
            proxy.delay_s = fault.delay_s
            await asyncio.sleep(lasts_s)
            proxy.delay_s = 0.0
        case Harm.SILENCE:
            proxy.silent = fault.way
            proxy.silence(fault.way)
            await asyncio.sleep(lasts_s)
            proxy.silent = None
            await asyncio.sleep(LEASE_S)  # new connections work, old ones are still dead
            proxy.end_silence()

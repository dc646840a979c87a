"""One round of one target under one shape, whatever comes of it."""

from collections.abc import Awaitable, Callable

from bench.children import ProviderProcess
from bench.results import Record
from bench.stage import Stage, Values, on_fresh_stage
from bench.targets.base import Target

_MOST_TOLD = 120


async def attempt(
    record: Record,
    target: Target,
    provider: ProviderProcess,
    seconds: float,
    measure: Callable[[Stage], Awaitable[Values]],
) -> Record:
    """``record`` with its values, or with the reason why there are none."""
    try:
        values = await on_fresh_stage(target, provider, seconds, measure)
    except Exception as error:  # noqa: BLE001  whatever it is belongs into the table
        told = str(error) or type(error).__name__
        return record.failed(" ".join(told.split())[-_MOST_TOLD:])
    return record.with_values(values)

"""One round of one target under one shape, with its values or its error."""

from collections.abc import Awaitable, Callable

from bench.children import ProviderProcess
from bench.results import Record
from bench.stage import Stage, Values, on_fresh_stage
from bench.targets.base import Target

_ERROR_LENGTH = 120


async def attempt(
    record: Record,
    target: Target,
    provider: ProviderProcess,
    seconds: float,
    measure: Callable[[Stage], Awaitable[Values]],
) -> Record:
    """Return ``record`` with its values, or with the error."""
    try:
        values = await on_fresh_stage(target, provider, seconds, measure)
    except Exception as error:  # noqa: BLE001  the table has every error
        message = str(error) or type(error).__name__
        return record.failed(" ".join(message.split())[-_ERROR_LENGTH:])
    return record.with_values(values)

"""Place of a stream's answer at a provider that stores it: its worker notes it, and the successor goes on there."""

import logging
from collections.abc import Mapping
from typing import Final

import msgspec

from shared.errors import ProviderError
from shared.protocol.ids import EventId
from shared.protocol.lineage import Lineage
from workers.providers.base import Provider, ProviderCursor, StoringProvider
from workers.providers.endpoint import ApiKey
from workers.providers.keys import Keys

logger = logging.getLogger(__name__)

#: Value of the state's field where the place in the provider's answer is not known.
UNKNOWN: Final = "-"


class StoredAnswer(msgspec.Struct, frozen=True):
    """The answer of one call at its provider, as the state's field ``provider_cursor`` has it. ``epoch``: of the log
    whose end ``at`` belongs to. ``target``: ``provider/model``. ``key``: id of the key that the call was made with;
    empty if the server needs none. ``at``: as in :class:`ProviderCursor`."""

    epoch: int
    target: str
    key: str
    response_id: str
    at: int | None

    @property
    def text(self) -> str:
        return msgspec.json.encode(self).decode()

    @property
    def provider(self) -> str:
        return self.target.partition("/")[0]

    @property
    def cursor(self) -> ProviderCursor:
        return ProviderCursor(self.response_id, self.at)


def stored_answer(fields: Mapping[str, bytes]) -> StoredAnswer | None:
    """Return the answer that a claimed state names, None if there is none."""
    text = fields.get("provider_cursor", b"").decode()
    if text in {"", UNKNOWN}:
        return None
    return msgspec.json.decode(text, type=StoredAnswer)


def readable_lineage(fields: Mapping[str, bytes], readable: int) -> Lineage:
    """Return the lineage of an epoch that continues the claimed log. ``readable``: number of its events."""
    return Lineage(fields.get("lineage", b"").decode()).continued(int(fields["log_epoch"]), readable)


def end_of_log(fields: Mapping[str, bytes], readable: int) -> EventId:
    """Return the id of the last event of the claimed log."""
    lineage = Lineage(fields.get("lineage", b"").decode())
    return EventId(lineage.epoch_of(readable, int(fields["log_epoch"])), readable)


async def cancel_at_provider(answer: StoredAnswer, providers: Mapping[str, Provider], keys: Keys) -> None:
    """Stop an answer that has no reader any more, so that it costs no more. A failure is logged."""
    provider = providers.get(answer.provider)
    line = {"provider": answer.provider, "target": answer.target}
    if not isinstance(provider, StoringProvider):
        logger.warning("stored answer not cancelled", extra=line | {"detail": "the provider is not configured"})
        return
    try:
        await provider.cancel(answer.response_id, key_of(answer, keys))
    except ProviderError as error:
        logger.warning("stored answer not cancelled", extra=line | {"code": error.code, "detail": error.detail})


def key_of(answer: StoredAnswer, keys: Keys) -> ApiKey | None:
    """Return the key of the call. Raises :class:`ProviderError` if this worker does not have it."""
    return keys.with_id(answer.provider, answer.key)

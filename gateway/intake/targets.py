"""Targets that a model name or an alias means for one request, in the order in which they are tried."""

import logging
from collections.abc import Mapping, Sequence

from gateway.intake.aliases import ordered
from gateway.intake.model_names import ModelNames
from shared.configuration.entries import AliasEntry, Target
from shared.errors import InvalidRequest, ModelNotAllowed, UnknownModel
from shared.schemas import ChatRequest
from shared.schemas.chat import MOST_FALLBACKS

logger = logging.getLogger(__name__)


class Targets:
    """Targets, as ``provider/model``, for one request. ``names``: on offer and allowed now."""

    def __init__(
        self, names: ModelNames, aliases: Mapping[str, AliasEntry], request: ChatRequest, chat_id: str | None
    ) -> None:
        self._names = names
        self._aliases = aliases
        self._request = request
        self._chat_id = chat_id

    def of(self, name: str, provider: str | None = None) -> list[str]:
        """Return the targets of a name, at least one. Raises :class:`UnknownModel` and :class:`ModelNotAllowed`."""
        alias = self._aliases.get(name) if provider is None else None
        if alias is None:
            return ["/".join(self._names.find(name, provider, self._aliases))]
        usable = usable_targets(alias, self._names)
        if not usable:
            for target in alias.targets:
                self._names.find(target.target)  # raises
        return ordered(usable, self._request, self._chat_id)

    def of_request(self, names: Sequence[str]) -> list[str]:
        """Return the targets of a request's own fallbacks. Raises :class:`InvalidRequest` and
        :class:`ModelNotAllowed`."""
        if len(names) > MOST_FALLBACKS:
            raise InvalidRequest(f"fallbacks: too many; use at most {MOST_FALLBACKS}")
        found = []
        for at, name in enumerate(names):
            try:
                found += self.of(name)
            except ModelNotAllowed as error:
                raise ModelNotAllowed(f"fallbacks.{at}: {error.message}") from None
            except UnknownModel as error:
                raise InvalidRequest(f"fallbacks.{at}: {error.message}") from None
        return found

    def of_settings(self, names: Sequence[str]) -> list[str]:
        """Return the targets that are on offer now and allowed: the others must not refuse a request."""
        found = []
        for name in names:
            try:
                found += self.of(name)
            except ModelNotAllowed:
                continue
            except UnknownModel as error:
                fields = {"fallback": name, "model": self._request.model, "detail": error.message}
                logger.warning("fallback unavailable", extra=fields)
        return found


def usable_targets(alias: AliasEntry, names: ModelNames) -> list[Target]:
    """Return the targets of an alias that are on offer and allowed."""
    return [target for target in alias.targets if _is_usable(target.target, names)]


def _is_usable(target: str, names: ModelNames) -> bool:
    try:
        names.find(target)
    except (UnknownModel, ModelNotAllowed):
        return False
    return True

"""The configuration in force, which a process replaces while it runs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from shared.configuration.configuration import Configuration, load_configuration
from shared.configuration.document import ConfigurationError

logger = logging.getLogger(__name__)

Apply = Callable[[Configuration], Awaitable[None]]
_BUG: Final = "internal error; see the log"


class CurrentConfiguration:
    """Holder of the configuration for new requests. Parts of a process read through it; a request that has begun
    keeps the configuration that it began with.

    ``apply``: prepares a new configuration before it comes into force, or refuses it with
    :class:`ConfigurationError`.
    """

    def __init__(self, configuration: Configuration, apply: Apply | None = None) -> None:
        self._configuration = configuration
        self._apply = apply
        self._followers = list[Callable[[Configuration], None]]()
        self._lock = asyncio.Lock()

    @property
    def value(self) -> Configuration:
        return self._configuration

    def follow(self, load: Callable[[Configuration], None]) -> None:
        """Pass every later configuration to ``load``, once it is in force."""
        self._followers.append(load)

    async def reload(self) -> str:
        """Read the file again. Return the problem, or an empty text if the new configuration is in force. After a
        problem the old one stays."""
        async with self._lock:
            try:
                configuration = await asyncio.to_thread(load_configuration, self.value.settings)
                if self._apply is not None:
                    await self._apply(configuration)
            except ConfigurationError as error:
                logger.error("configuration refused", extra={"detail": str(error), "hash": self.value.hash})  # noqa: TRY400
                return str(error)
            except Exception:  # a bug of ours must not stop a process that serves
                logger.exception("configuration refused", extra={"hash": self.value.hash})
                return _BUG
            self._configuration = configuration
            for load in self._followers:
                load(configuration)
            logger.info("configuration loaded", extra={"hash": configuration.hash})
            return ""

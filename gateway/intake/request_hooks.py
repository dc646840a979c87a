"""Checks of requests by the operator's hooks, before anything is queued (docs/adr/0034)."""

import asyncio
import logging
import traceback
from dataclasses import dataclass
from typing import NoReturn

from gateway import metrics
from gateway.auth.principal import Principal
from gateway.intake.body_memory import run_beside_loop
from shared.errors import HookFailed, RequestError, UnsupportedField
from shared.hook_loading import close_hooks
from shared.hooks import HooksLike, RequestContext, RequestRefused
from shared.schemas import ChatRequest, StoredRequest
from shared.schemas.chat import validate
from shared.schemas.request_budget import RequestBudget

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checked:
    """A request after its check. ``is_changed``: it goes on without the client's original, and so without the fields
    ``lost``."""

    request: ChatRequest
    is_changed: bool = False
    lost: tuple[str, ...] = ()


class RequestHooks:
    """The checks of a gateway. ``hooks``: None if there are none."""

    def __init__(self, hooks: HooksLike | None, timeout_s: float) -> None:
        self._hooks = hooks
        self._timeout_s = timeout_s

    @property
    def fields(self) -> dict[str, str]:
        """The field of a stream's state that makes a worker without hooks refuse it."""
        return {} if self._hooks is None else {"hooks": "1"}

    async def check(self, request: ChatRequest, caller: Principal, *, refuses_loss: bool) -> Checked:
        """Return the request to queue. ``refuses_loss``: do not lose fields that only the original has. Raises
        :class:`RequestRefused`, :class:`HookFailed` and :class:`UnsupportedField`."""
        if self._hooks is None:
            return Checked(request)
        try:
            async with asyncio.timeout(self._timeout_s):
                returned = await self._hooks.check_request(request, RequestContext(caller.id, caller.key_id))
            if returned is None or returned is request:
                return Checked(request)
            changed = await run_beside_loop(_valid, request, returned)
        except RequestRefused as error:
            metrics.REFUSALS.labels(error.code).inc()
            raise RequestRefused(error.message) from None
        except Exception as error:  # noqa: BLE001  an operator's code
            _fail(error)
        if changed == request:
            return Checked(request)
        return _without_original(request, changed, refuses_loss=refuses_loss)

    async def aclose(self) -> None:
        if self._hooks is not None:
            await close_hooks(self._hooks, self._timeout_s)


def _valid(request: ChatRequest, returned: object) -> ChatRequest:
    """Return the hook's request, with the schemas checked as a client's are. Raises :class:`RequestError`."""
    if not isinstance(returned, ChatRequest):
        raise TypeError("check_request returned another type than a request")
    fields = returned.model_dump(mode="json", exclude_none=True, exclude={"original"})
    made = validate(type(request), fields, RequestBudget())
    if not isinstance(request, StoredRequest):
        return made
    original = returned.original if isinstance(returned, StoredRequest) else None
    return made.model_copy(
        update={"original": original, "fails_unless_resumed": request.fails_unless_resumed},
    )


def _without_original(request: ChatRequest, changed: ChatRequest, *, refuses_loss: bool) -> Checked:
    """Leave out the original: it has the texts that were changed. Raises :class:`UnsupportedField`."""
    original = request.original if isinstance(request, StoredRequest) else None
    if original is None:
        return Checked(changed, is_changed=True)
    lost = tuple(original.specific)
    path = original.forced or (lost[0] if refuses_loss and lost else None)
    if path is not None:
        raise UnsupportedField(f"{path}: cannot be kept, because this service changed the request; leave it out")
    return Checked(changed.model_copy(update={"original": None}), is_changed=True, lost=lost)


def _fail(error: Exception) -> NoReturn:
    """Log a failure of a hook without its message, which may have content, and refuse the request."""
    kind = "timeout" if isinstance(error, TimeoutError) else type(error).__name__
    trace = "" if isinstance(error, RequestError) else "".join(traceback.format_tb(error.__traceback__))
    logger.error("hook failed", extra={"hook": "check_request", "error": kind, "exception": trace})
    metrics.REFUSALS.labels(HookFailed.code).inc()
    raise HookFailed from None

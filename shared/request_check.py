"""One check of a request by the operator's hooks: in its gateway, or in a worker if that gateway has no hooks
(docs/adr/0034)."""

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn

from shared.errors import HookFailed, RequestError, UnsupportedField
from shared.hooks import HooksLike, RequestContext, RequestRefused
from shared.schemas import ChatRequest, StoredRequest
from shared.schemas.chat import validate
from shared.schemas.request_budget import RequestBudget

logger = logging.getLogger(__name__)

#: Calls a function so that a large request does not delay the others, as :func:`asyncio.to_thread` does.
BesideLoop = Callable[[Callable[[ChatRequest, object], ChatRequest], ChatRequest, object], Awaitable[ChatRequest]]


@dataclass(frozen=True, slots=True)
class Checked:
    """A request after its check. ``is_changed``: it goes on without the client's original, and so without the fields
    ``lost``."""

    request: ChatRequest
    is_changed: bool = False
    lost: tuple[str, ...] = ()


async def check(
    hooks: HooksLike,
    request: ChatRequest,
    context: RequestContext,
    timeout_s: float,
    *,
    refuses_loss: bool = False,
    beside_loop: BesideLoop = asyncio.to_thread,
) -> Checked:
    """Return the request as the hooks let it pass. ``refuses_loss``: do not lose fields that only the original has.
    Raises :class:`RequestRefused`, :class:`HookFailed` and :class:`UnsupportedField`."""
    try:
        async with asyncio.timeout(timeout_s):
            returned = await hooks.check_request(request, context)
        if returned is None or returned is request:
            return Checked(request)
        changed = await beside_loop(_valid, request, returned)
    except RequestRefused as error:
        raise RequestRefused(error.message) from None
    except Exception as error:  # noqa: BLE001  an operator's code
        _fail(error)
    if changed == request:
        return Checked(request)
    return _without_original(request, changed, refuses_loss=refuses_loss)


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
    raise HookFailed from None

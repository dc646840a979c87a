"""Checks of requests by the operator's hooks, before anything is queued (docs/adr/0034)."""

from gateway import metrics
from gateway.auth.principal import Principal
from gateway.intake.body_memory import run_beside_loop
from shared.errors import HookFailed
from shared.hook_loading import close_hooks
from shared.hooks import HooksLike, RequestContext, RequestRefused
from shared.request_check import Checked, check
from shared.schemas import ChatRequest


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
        context = RequestContext(caller.id, caller.key_id)
        try:
            return await check(
                self._hooks,
                request,
                context,
                self._timeout_s,
                refuses_loss=refuses_loss,
                beside_loop=run_beside_loop,
            )
        except (RequestRefused, HookFailed) as error:
            metrics.REFUSALS.labels(error.code).inc()
            raise

    async def aclose(self) -> None:
        if self._hooks is not None:
            await close_hooks(self._hooks, self._timeout_s)

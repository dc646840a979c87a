"""Choice of the receiver of a stream's ending: the request's own, the API key's, or the server's."""

from gateway.auth.principal import Principal
from shared.errors import InvalidRequest
from shared.schemas import ChatRequest
from shared.settings import Settings
from shared.webhook_hosts import WebhookUrlRefused


def check_webhook_url(settings: Settings, chat_request: ChatRequest) -> None:
    """Raise :class:`InvalidRequest` for a URL that the server does not allow."""
    if chat_request.webhook_url is not None:
        try:
            settings.allowed_webhook_hosts.check(chat_request.webhook_url)
        except WebhookUrlRefused as error:
            raise InvalidRequest(f"webhook_url: {error}") from None


def webhook_fields(settings: Settings, caller: Principal, chat_request: ChatRequest) -> dict[str, str]:
    """Return the fields of the stream's state: ``webhook`` (URL) and ``webhook_by`` (request, key or server; a
    worker trusts the operator's URLs); none if nobody wants to know."""
    if chat_request.webhook_url is not None:
        return {"webhook": chat_request.webhook_url, "webhook_by": "request"}
    if chat_request.only_count:
        return {}
    if caller.webhook_url is not None:
        return {"webhook": caller.webhook_url, "webhook_by": "key"}
    return {"webhook": settings.webhook_url, "webhook_by": "server"} if settings.webhook_url else {}

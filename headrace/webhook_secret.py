"""The secret that signs webhooks: what is wrong if it is missing."""

from typing import Final

from shared.settings import Settings

_MISSING: Final = "\n".join(
    (
        "HEADRACE_WEBHOOK_SECRET: not set, so receivers could not verify webhooks; set it for all workers. Make one",
        'with echo "whsec_$(openssl rand -base64 32)",',
        "or remove HEADRACE_WEBHOOK_URL and HEADRACE_WEBHOOK_HOSTS.",
    )
)


def secret_problem(settings: Settings) -> str:
    """Return the problem of a worker that would have to send webhooks without a secret; empty if there is none."""
    wants = settings.webhook_url or settings.webhook_hosts
    return _MISSING if wants and not settings.webhook_secret else ""

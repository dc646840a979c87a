"""Check that a gateway that others can reach has its authentication decided."""

from shared.setting_types import is_loopback
from shared.settings import Settings, SettingsError


def check_exposure(settings: Settings) -> None:
    """Raise :class:`SettingsError` if others can reach the gateway and authentication is not configured."""
    if settings.auth:
        return
    remedy = "set it to keys, jwt or keys,jwt, or to none to accept every request"
    if not is_loopback(settings.host):
        raise SettingsError(
            f"HEADRACE_AUTH: not set, but HEADRACE_HOST ({settings.host}) is reachable by others; {remedy}"
        )
    if settings.trusted_proxies:
        raise SettingsError(
            "HEADRACE_AUTH: not set, but HEADRACE_TRUSTED_PROXIES names a proxy, through which others reach the"
            f" gateway; {remedy}"
        )

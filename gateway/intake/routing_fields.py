"""Fields of a stream's state from which the scripts and the workers route it."""

import hmac
from itertools import takewhile

from gateway.intake.aliases import prefix_of
from gateway.intake.field_policy import targets_of
from shared.configuration.configuration import Configuration
from shared.configuration.entries import AliasEntry
from shared.schemas import ChatRequest


def routing_fields(
    resolved: ChatRequest, alias: AliasEntry | None, chat_id: str | None, configuration: Configuration
) -> dict[str, str]:
    """Return the fields for a resolved request. ``alias``: the one that it named.

    ``lanes``: the provider of each target, separated by spaces, if there are several; the further candidates are
    fallbacks. ``routing``: ``least_busy``. ``prefix``: hash of what requests with the same prompt cache have in
    common, if anything is chosen by it.
    """
    first, *others = targets_of(resolved)
    own = {target.target for target in alias.targets} if alias is not None else set[str]()
    targets = [first, *takewhile(own.__contains__, others)] if first in own else [first]
    providers = [target.partition("/")[0] for target in targets]
    fields = {"lanes": " ".join(providers)} if len(targets) > 1 else {}
    if alias is not None and alias.routing == "least_busy" and len(targets) > 1:
        fields["routing"] = "least_busy"
    entries = [configuration.providers.get(target.partition("/")[0]) for target in (first, *others)]
    if "routing" in fields or any(entry is not None and len(entry.api_keys) > 1 for entry in entries):
        fields |= _prefix(resolved, chat_id, configuration)
    return fields


def _prefix(resolved: ChatRequest, chat_id: str | None, configuration: Configuration) -> dict[str, str]:
    """Return the prefix so that guessing instructions from it requires the secret."""
    prefix, secret = prefix_of(resolved, chat_id), configuration.settings.secret
    if prefix is None:
        return {}
    key = secret.get_secret_value().encode() if secret else b""
    return {"prefix": hmac.digest(key, prefix.encode(), "sha256").hex()[:16]}

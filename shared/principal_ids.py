"""Ids of principals, the owners of streams, chats, limits and links.

======================  ====================================================
``key:NAME``            an API key, and other keys of the same name
``key:NAME/USER``       a user for whom such a key acts
``jwt:SUB``             a token
``jwt-user:SUB/USER``   a user for whom such a token acts
``anonymous``           every caller, if authentication is disabled
======================  ====================================================

No two callers get the same id: a key's name and a user have no slash. A token's subject may have one, so users of
tokens have a kind of their own.
"""

import re
from typing import Final

ANONYMOUS_ID: Final = "anonymous"
#: Maximum length of ``sub`` in OpenID Connect; RFC 7519's StringOrURI has none.
LONGEST_SUBJECT: Final = 255
LONGEST_USER: Final = 128
_KEY_NAME: Final = re.compile(r"[\w.@-]{1,64}")
#: Visible ASCII. A slash separates a user from the credentials; a comma, two header fields that a proxy has joined.
USER_PATTERN: Final = rf"^[!-+\-.0-~]{{1,{LONGEST_USER}}}$"
_USER: Final = re.compile(USER_PATTERN)


def is_key_name(text: str) -> bool:
    return _KEY_NAME.fullmatch(text) is not None


def is_subject(text: str) -> bool:
    return 0 < len(text) <= LONGEST_SUBJECT and text.isprintable()


def is_user(text: str) -> bool:
    return _USER.fullmatch(text) is not None


def key_principal(name: str) -> str:
    return f"key:{name}"


def token_principal(subject: str) -> str:
    return f"jwt:{subject}"


def user_principal(actor: str, user: str) -> str:
    """Return the id of a user for whom ``actor`` acts: the id of a key or a token."""
    kind, _, name = actor.partition(":")
    return f"key:{name}/{user}" if kind == "key" else f"jwt-user:{name}/{user}"


def actor_of(principal: str) -> str | None:
    """Return the id of the key or token that acts for this principal; None if it is not a user of one."""
    kind, _, rest = principal.partition(":")
    name, slash, _ = rest.rpartition("/")
    if not slash or kind not in {"key", "jwt-user"}:
        return None
    return key_principal(name) if kind == "key" else token_principal(name)


def is_principal(text: str) -> bool:
    """Return True if ``text`` is the id of a key, a token, or a user of one."""
    kind, _, rest = text.partition(":")
    name, slash, user = rest.rpartition("/")
    match kind:
        case "key":
            return is_key_name(name) and is_user(user) if slash else is_key_name(rest)
        case "jwt":
            return is_subject(rest)
        case "jwt-user":
            return is_subject(name) and is_user(user)
    return False

"""Keys of chats; keys.py describes them."""

import hashlib


def chat_digest(chat_id: str) -> str:
    """Return the name of a chat in keys. The client chooses the chat's id freely, so it is hashed."""
    return hashlib.sha256(chat_id.encode()).hexdigest()[:32]


def chat_keys(account: str, digest: str) -> list[str]:
    """Return the keys of a chat, which share a slot: the one of its latest stream, and the list of all of them."""
    prefix = f"hr:chat:{{{account}:{digest}}}:"
    return [f"{prefix}latest", f"{prefix}streams"]


def chats_key(account: str) -> str:
    """Return the key of the list of an account's chats."""
    return f"hr:chats:{account}"

"""Service tier of an answer, in the words of OpenAI's formats and of Anthropic's."""

from typing import Final

from shared.protocol.events import Event, Extra

_OPENAI_WORDS: Final = {"standard": "default", "priority": "priority"}
_ANTHROPIC_WORDS: Final = {word: name for name, word in _OPENAI_WORDS.items()}


def openai_tier(event: Event) -> str | None:
    """Return the tier that the event names, in OpenAI's words, or None."""
    match event:
        case Extra("openai", {"chunk": {"service_tier": str(tier)}}):
            return tier
        case Extra("responses", {"response": {"service_tier": str(tier)}}):
            return tier
        case Extra("anthropic", {"usage": {"service_tier": str(tier)}}):
            return _OPENAI_WORDS.get(tier)
    return None


def anthropic_tier(event: Event) -> str | None:
    """Return the tier that a server of OpenAI's format names, in Anthropic's words, or None."""
    tier = openai_tier(event)
    return None if tier is None else _ANTHROPIC_WORDS.get(tier)

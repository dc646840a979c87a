"""Profiles of the kit, and those of other modules."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Final

from headrace_conformance.profile import Profile

#: Each is a module of this package and its class.
OURS: Final = {
    "native": "headrace_conformance.profiles.native:Native",
    "responses": "headrace_conformance.profiles.responses:Responses",
    "ag-ui": "headrace_conformance.profiles.ag_ui:AgUi",
    "ai-sdk": "headrace_conformance.profiles.ai_sdk:AiSdk",
    "headrace-ai-sdk": "headrace_conformance.profiles.ai_sdk:HeadraceAiSdk",
    "durable-streams": "headrace_conformance.profiles.durable_streams:DurableStreams",
    "durable-streams-polls": "headrace_conformance.profiles.durable_streams_polls:DurableStreamsPolls",
}


class UnknownProfile(Exception):
    """No profile has this name; the message lists those there are."""


def load(name: str) -> Profile:
    """Return a profile by its name, or by ``module:Class``, looked up in the working directory too. Raises
    :class:`UnknownProfile`."""
    module, colon, attribute = OURS.get(name, name).partition(":")
    if not colon:
        raise UnknownProfile(f"--profile: {name!r} is unknown; use {', '.join(OURS)} or module:Class")
    sys.path.append(str(Path.cwd()))
    try:
        found = getattr(import_module(module), attribute, None)
    except ImportError as error:
        raise UnknownProfile(f"--profile: {module} cannot be imported: {error}") from error
    finally:
        sys.path.pop()
    if not (isinstance(found, type) and issubclass(found, Profile)):
        raise UnknownProfile(f"--profile: {module}:{attribute} is no subclass of headrace_conformance.Profile")
    return found()

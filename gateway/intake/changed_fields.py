"""Fields of a stream's state that repeat the client's request, once a hook has changed the request."""

from collections.abc import Mapping

import msgspec

from gateway.chats.history import title_of
from shared.schemas import ChatRequest


def changed_fields(fields: Mapping[str, str], request: ChatRequest) -> dict[str, str]:
    """Return a dialect's fields without texts of the client: a title of the changed request, no messages as the
    client shows them, and no large attributes of a response. Those that a response repeats are its defaults then."""
    made = {name: value for name, value in fields.items() if name != "shown"}
    if "title" in made:
        made["title"] = title_of(request)
    if "response" in made:
        attributes = msgspec.json.decode(made["response"])
        attributes.pop("large", None)
        made["response"] = msgspec.json.encode(attributes).decode()
    return made

"""A client's request as it came, for a provider of the same family.

A family is a wire format: ``anthropic`` is Messages, ``openai`` Chat Completions, ``responses`` Responses. A provider
of the same family sends the original instead of a translation, so that nothing of it is lost. All other providers
use the canonical fields.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from shared.schemas.messages import IMAGE_CHARACTERS
from shared.schemas.model import Model

Family = Literal["anthropic", "openai", "responses"]
#: Characters without a space from which a text counts as encoded data instead of words.
_DATA_CHARACTERS: Final = 4000
#: Paths of an original's fields without a canonical counterpart. Further ones are not named.
MOST_PATHS: Final = 64


class Original(Model):
    """A client's request as it came. ``body``: the JSON object without the fields that only Headrace reads.
    ``headers``: those that the provider reads too, in lower case. ``specific``: paths of the fields that a provider
    of another family does not get. ``forced``: path of the choice of a tool that only this family has. A provider of
    another family refuses the request, because an answer without that tool would be another one."""

    family: Family
    body: dict[str, Any]
    headers: dict[str, str] = Field(default_factory=dict)
    specific: Annotated[list[str], Field(max_length=MOST_PATHS)] = Field(default_factory=list)
    forced: str | None = None

    @property
    def characters(self) -> int:
        """Characters of all texts, and the worth of encoded data."""
        return _characters(self.body)


def _characters(value: Any) -> int:
    count, waiting = 0, [value]
    while waiting:
        match waiting.pop():
            case str() as text:
                is_data = len(text) > _DATA_CHARACTERS and " " not in text[:_DATA_CHARACTERS]
                count += IMAGE_CHARACTERS if is_data else len(text)
            case dict() as members:
                waiting += members.values()
                count += sum(map(len, members))
            case list() as items:
                waiting += items
    return count

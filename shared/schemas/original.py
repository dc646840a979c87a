"""A client's request as it came, for a provider of the same family.

A family is a wire format: ``anthropic`` is Messages, ``openai`` Chat Completions, ``responses`` Responses. A provider
of the same family sends the original instead of a translation, so that nothing of it is lost. All other providers
use the canonical fields.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from shared.schemas.model import Model
from shared.schemas.text_count import request_characters

Family = Literal["anthropic", "openai", "responses"]
#: Paths of an original's fields without a canonical counterpart. Further ones are not named.
MOST_PATHS: Final = 64


class Original(Model):
    """A client's request as it came. ``body``: the JSON object without the fields that only Headrace reads.
    ``headers``: those that the provider reads too, in lower case. ``specific``: paths of the fields that a provider
    of another family does not get. ``forced``: path of a field that only this family has and that is never left out,
    such as the choice of its own tool or ``conversation``. A provider of another family refuses the request, because
    an answer without that field would be another one."""

    family: Family
    body: dict[str, Any]
    headers: dict[str, str] = Field(default_factory=dict)
    specific: Annotated[list[str], Field(max_length=MOST_PATHS)] = Field(default_factory=list)
    forced: str | None = None

    @property
    def characters(self) -> int:
        """Characters of all texts that a model reads, and the worth of encoded data."""
        return request_characters(self.body)

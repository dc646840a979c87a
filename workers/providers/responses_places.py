"""Places in a stored answer of Responses: the id of the response, and the numbers of its events."""

import re
from collections.abc import Mapping
from typing import Any, Final

from workers.providers.base import ProviderCursor
from workers.providers.framing import loose_json
from workers.providers.responses_events import RESPONSE_EVENTS, NumberedEvent
from workers.providers.usage_counts import member, whole_number

#: Ids become a part of a path.
_ID: Final = re.compile(r"(?!\.+$)[A-Za-z0-9_.:-]{1,256}")
_OF_ANSWER: Final = "response."


class LostPlace(Exception):
    """Events that do not follow those before. ``cause``: of the error for operators."""

    def __init__(self, cause: str) -> None:
        super().__init__()
        self.cause = cause


class Place:
    """The place behind the events that were taken, over all connections of one answer.

    The events of a first connection name the response. If they do not number themselves one after the other, or if
    the response is not one in the background, the answer cannot be resumed: ``is_stored`` is False. Further
    connections must continue the numbers.

    Keep-alive messages may have numbers too. It is unknown whether those of the stored events count them, so after
    one, the next connection counts events instead.
    """

    def __init__(self, response_id: str | None = None) -> None:
        self.response_id = response_id
        self.at: int | None = None
        self.has_own_numbers = False
        self._can_be_stored = True
        self._is_first = response_id is None
        self.taken = 0  # events about the answer
        self._to_skip = 0

    @property
    def is_stored(self) -> bool:
        return self._can_be_stored and self.response_id is not None

    @property
    def cursor(self) -> ProviderCursor | None:
        id = self.response_id
        return ProviderCursor(id, self.at) if self._can_be_stored and id is not None else None

    def adopt(self, response: Mapping[str, Any]) -> bool:
        """Take the id of a whole response, of a server that does not stream. Returns True if it can be read again."""
        if self._can_be_stored and self.response_id is None:
            self._name(response)
        return self.is_stored and response.get("id") == self.response_id

    def void(self) -> None:
        """Note that there is no place any more from which the answer could be resumed."""
        self._can_be_stored = False

    def reconnect(self) -> int | None:
        """Prepare for another connection. Returns the number of the event after which it should begin; None: with
        the first event."""
        self._is_first = False
        if not self.has_own_numbers:
            return self.at
        self.has_own_numbers = False
        self._to_skip, self.at = self.taken, None
        return None

    def accepts(self, event: NumberedEvent, piece: bytes) -> bool:
        """Return True for an event that is to be taken. Raises :class:`LostPlace`."""
        if not self._can_be_stored:
            return True
        self._check_id(event, piece)
        number = whole_number(event.sequence_number)
        is_of_answer = str(event.type).startswith(_OF_ANSWER)
        if number is None:
            return self._accepts_without_number(is_of_answer=is_of_answer)
        if not self._is_first and self.at is not None and number <= self.at:
            return False
        if self.at is not None and number != self.at + 1:
            if not self._is_first:
                raise LostPlace(f"event {self.at + 1} is missing")
            self.void()
        return self._counts(number, is_of_answer=is_of_answer)

    def _accepts_without_number(self, *, is_of_answer: bool) -> bool:
        """An event about the answer has to have a number; others, such as errors, need none."""
        if is_of_answer and not self._is_first:
            raise LostPlace("an event has no number")
        if is_of_answer:
            self.void()
        return True

    def _counts(self, number: int, *, is_of_answer: bool) -> bool:
        self.at = number
        if not is_of_answer:
            self.has_own_numbers = True
            return True
        if self._to_skip:
            self._to_skip -= 1
            return False
        self.taken += 1
        return True

    def _check_id(self, event: NumberedEvent, piece: bytes) -> None:
        """Take the id of the response, or compare it. Output before the id is known has no place."""
        if event.type not in RESPONSE_EVENTS:
            if self.response_id is None and str(event.type).startswith(_OF_ANSWER):
                self.void()
            return
        if self._is_first and self.response_id is not None:
            return
        response = member(loose_json(piece), "response")
        if self.response_id is None:
            self._name(response)
        elif member(response, "id") not in {None, self.response_id}:
            raise LostPlace("it is another response")

    def _name(self, response: object) -> None:
        id = member(response, "id")
        if member(response, "background") is True and isinstance(id, str) and _ID.fullmatch(id):
            self.response_id = id
        else:
            self.void()

"""Limits on the work that the content of one request may cause.

A small body can be expensive: by references that multiply, patterns that are large once compiled, deep nesting.
Every check that such content needs is counted here, across the whole request, and refused before the work.
The counted steps are at most :data:`STEPS_PER_BYTE` for each byte of the body.
"""

from typing import Final, Self

from pydantic import ValidationInfo

#: Steps that the checks of schemas may take for each byte of the body. ``tests/test_request_budget.py`` asserts it.
STEPS_PER_BYTE: Final = 4
#: Values of all schemas together.
MAX_SCHEMA_VALUES: Final = 25_000
MAX_REFERENCES: Final = 2_000
#: Estimated size of all compiled patterns together. A megabyte takes about 8 ms to compile.
MAX_PATTERN_BYTES: Final = 8_000_000
#: Content parts and tool calls of all messages together.
MAX_PARTS: Final = 16_384
#: Characters of all images that are sent as ``data:`` URLs, together.
MAX_IMAGE_BYTES: Final = 64 * 1024 * 1024


class RequestBudget:
    """Counts the work for one request. Each method raises ValueError at its limit; the message has the remedy.

    ``checks_schemas`` is False for a stored request, because the gateway checked its schemas before it stored them,
    and after a schema was refused, because the whole request is.
    """

    def __init__(self, *, checks_schemas: bool = True) -> None:
        self.checks_schemas = checks_schemas
        self.steps = 0
        self._values = 0
        self._references = 0
        self._pattern_bytes = 0
        self._parts = 0
        self._image_bytes = 0

    @classmethod
    def of(cls, info: ValidationInfo) -> Self:
        """Return the budget of the request that is being validated; a fresh one outside a request."""
        return info.context if isinstance(info.context, cls) else cls()

    def add_values(self, count: int) -> None:
        self.steps += count
        self._values += count
        if self._values > MAX_SCHEMA_VALUES:
            raise ValueError(f"the schemas of a request may have {MAX_SCHEMA_VALUES} values; shorten them")

    def add_reference(self) -> None:
        self.steps += 1
        self._references += 1
        if self._references > MAX_REFERENCES:
            raise ValueError(f"the schemas of a request may have {MAX_REFERENCES} references; remove some")

    def add_pattern(self, size: int) -> None:
        self.steps += 1
        self._pattern_bytes += size
        if self._pattern_bytes > MAX_PATTERN_BYTES:
            raise ValueError("the patterns of a request are too large together; shorten them, or remove repetitions")

    def add_parts(self, count: int) -> None:
        self._parts += count
        if self._parts > MAX_PARTS:
            raise ValueError(f"the messages may have {MAX_PARTS} parts and tool calls; send fewer")

    def add_image(self, size: int) -> None:
        self._image_bytes += size
        if self._image_bytes > MAX_IMAGE_BYTES:
            raise ValueError(f"the images may have {MAX_IMAGE_BYTES} bytes together; send fewer or smaller ones")

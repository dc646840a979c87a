"""Form of the answer: text, JSON, or JSON that follows a schema."""

from typing import Any, Final, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from shared.schemas.json_schema import JsonSchema
from shared.schemas.model import Model, Name


class NamedSchema(Model):
    name: Name
    description: str | None = None
    schema_: JsonSchema = Field(alias="schema")
    strict: bool | None = None


#: The rule of :meth:`ResponseFormat._has_its_schema`, for the OpenAPI description.
_BY_TYPE: Final[dict[str, Any]] = {
    "if": {"properties": {"type": {"const": "json_schema"}}},
    "then": {"required": ["json_schema"], "properties": {"json_schema": {"not": {"type": "null"}}}},
    "else": {"properties": {"json_schema": {"type": "null"}}},
}


class ResponseFormat(Model):
    """Form of the answer. ``json_schema`` is required by the type of that name, and only allowed with it."""

    model_config = ConfigDict(json_schema_extra=_BY_TYPE)

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if (self.json_schema is not None) != (self.type == "json_schema"):
            raise ValueError("`json_schema` is required by the type json_schema, and by no other; add or remove it")
        return self

    @property
    def schema_to_follow(self) -> dict[str, Any] | None:
        """Schema that a JSON answer must follow; None for text."""
        if self.json_schema is not None:
            return self.json_schema.schema_
        return {"type": "object"} if self.type == "json_object" else None

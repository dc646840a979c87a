"""Places of secrets that a configuration names: ``env:NAME`` or ``file:/path``. Only workers and ``headrace check``
read them."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, PlainSerializer, SecretStr, WithJsonSchema

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST: Final = 16_384


class SecretUnreadable(Exception):
    """The place of a secret has none. The message is ``problem; remedy``."""


@dataclass(frozen=True, slots=True)
class SecretSource:
    kind: Literal["env", "file"]
    place: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.place}"

    def read(self) -> SecretStr:
        """Return the secret. Raises :class:`SecretUnreadable`."""
        text = os.environ.get(self.place, "") if self.kind == "env" else self._file()
        secret = text.strip()
        if not secret:
            remedy = "set the variable" if self.kind == "env" else "write the key into the file"
            raise SecretUnreadable(f"{self} is empty; {remedy}")
        if not (secret.isascii() and secret.isprintable()):
            raise SecretUnreadable(f"{self} is not one line of printable ASCII; check its content")
        return SecretStr(secret)

    def _file(self) -> str:
        try:
            with Path(self.place).open(encoding="utf-8") as file:
                return file.read(_LONGEST)
        except OSError as error:
            raise SecretUnreadable(f"{self}: {(error.strerror or 'unreadable').lower()}; check the path") from error
        except UnicodeDecodeError:
            raise SecretUnreadable(f"{self} is not text; check its content") from None


def _parse(value: Any) -> SecretSource:
    if isinstance(value, SecretSource):
        return value
    kind, colon, place = value.partition(":") if isinstance(value, str) else ("", "", "")
    if colon and kind == "env" and _VARIABLE.fullmatch(place):
        return SecretSource("env", place)
    if colon and kind == "file" and place.startswith("/"):
        return SecretSource("file", place)
    raise ValueError("not the place of a secret; write it as env:NAME or file:/absolute/path")


#: A secret's place, as text in TOML.
SecretPlace = Annotated[
    SecretSource,
    BeforeValidator(_parse),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "pattern": r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:/.+)$"}),
]

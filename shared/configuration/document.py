"""Reads ``headrace.toml`` and lists everything that is wrong with it, each problem with its line."""

import difflib
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from shared.configuration.entries import AliasEntry, Misfits, PriceEntry, ProviderEntry, Quirks, Target
from shared.configuration.toml_lines import line_of, lines_of
from shared.problem_texts import text_of

_LARGEST: Final = 4 * 1024 * 1024
_WRONG_TYPES: Final = {
    "dict_type": "not a table; write it as [section] or {…}",
    "model_type": "not a table; write it as [section] or {…}",
    "model_attributes_type": "not a table; write it as [section] or {…}",
    "tuple_type": "not an array; use […]",
}
KeyPath = tuple[str | int, ...]


class ConfigurationError(Exception):
    """The configuration cannot be used. The message lists every problem, one per line."""


class Document(BaseSettings):
    """The content of one file."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    providers: dict[str, ProviderEntry] = Field(default_factory=dict)
    models: dict[str, AliasEntry] = Field(default_factory=dict)
    prices: dict[str, PriceEntry] = Field(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read no environment variables: only what :func:`read_document` passes."""
        return (init_settings,)


class Problems:
    """Problems of one file. ``lines``: of its keys, see :func:`lines_of`."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = lines_of(text)
        self._found: list[tuple[int, str]] = []

    def add(self, key: KeyPath, problem: str) -> None:
        """Add ``problem; remedy`` of one key."""
        names = tuple(str(part) for part in key if isinstance(part, str))
        line = line_of(self._lines, names) or 1
        self._found.append((line, f"{self._path}:{line}: {_shown(key)}{problem}"))

    def raise_if_any(self) -> None:
        """Raise :class:`ConfigurationError` with all problems, in the order of their lines."""
        if self._found:
            raise ConfigurationError("\n".join(problem for _, problem in sorted(self._found)))


def read_document(path: Path) -> tuple[Document, Problems]:
    """Read and validate a file. Returns it with a list for further problems. Raises :class:`ConfigurationError`."""
    text = _text_at(path)
    problems = Problems(path, text)
    try:
        content = TomlConfigSettingsSource(Document, path)()
        return Document(**content), problems
    except ValidationError as error:
        _add_all(problems, content, error)
    problems.raise_if_any()
    raise AssertionError("unreachable: an invalid document has problems")


def _add_all(problems: Problems, content: dict[str, Any], error: ValidationError) -> None:
    """Add all errors of a document. A table with a wrong value is checked once more without it, because pydantic
    compares the keys of a table only if all of them are valid."""
    wrong: dict[KeyPath, set[str]] = {}
    for details in error.errors(include_url=False, include_input=False):
        key = tuple(part for part in details["loc"] if part != "[key]")
        if (misfits := details.get("ctx", {}).get("error")) and isinstance(misfits, Misfits):
            _add_misfits(problems, key, misfits)
            continue
        problems.add(key, _problem_of(details, key))
        if key[0] == "providers" and len(key) > len(("providers", "NAME")):
            wrong.setdefault(key[:2], set()).add(str(key[2]))
    for table, names in wrong.items():
        _add_misfits(problems, table, _misfits_of(content[str(table[0])][table[1]], names), names)


def _misfits_of(table: dict[str, Any], wrong: set[str]) -> Misfits:
    """Return the misfits of a provider's table without its ``wrong`` keys."""
    try:
        ProviderEntry.model_validate({name: value for name, value in table.items() if name not in wrong})
    except ValidationError as error:
        for details in error.errors(include_url=False, include_input=False):
            if isinstance(misfits := details.get("ctx", {}).get("error"), Misfits):
                return misfits
    return Misfits([])


def _add_misfits(problems: Problems, table: KeyPath, misfits: Misfits, wrong: Collection[str] = ()) -> None:
    """Add the misfits of a table, except those of keys that are ``wrong`` anyway."""
    for misfit in misfits.problems:
        key, _, problem = misfit.partition(": ")
        names = key.split(".")
        if names[0] not in wrong:
            problems.add((*table, *names), problem)


def _text_at(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise ConfigurationError(f"{path}: larger than {_LARGEST} bytes; remove a part of it")
        text = path.read_text(encoding="utf-8")
        tomllib.loads(text)
    except OSError as error:
        problem = (error.strerror or "unreadable").lower()
        raise ConfigurationError(f"{path}: {problem}; set HEADRACE_CONFIG or --config to a readable file") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: not UTF-8; save it as UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path}: not valid TOML: {_where(error)}; correct it there") from None
    return text.replace("\r\n", "\n")


def _where(error: Exception) -> str:
    """Return the position of a syntax error. The message of tomllib may quote the document."""
    _, found, place = str(error).rpartition("(at ")
    return place.rstrip(")") if found else "it is nested too deeply"


def _problem_of(details: ErrorDetails, key: KeyPath) -> str:
    kind = details["type"]
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(str(key[-1]), _known(key), n=1)
        return "unknown key; " + (f"did you mean {close[0]}?" if close else f"use {', '.join(_known(key))}")
    if kind == "missing":
        return "missing; add it"
    if kind == "string_pattern_mismatch":
        return f"not in the form {details['ctx']['pattern']}; correct it"
    return _WRONG_TYPES.get(kind) or text_of(details)


def _known(key: KeyPath) -> list[str]:
    """Return the names of the keys beside an unknown one."""
    names = [part for part in key if isinstance(part, str)]
    if len(names) == 1:
        return list(Document.model_fields)
    if "quirks" in names:
        return list(Quirks.model_fields)
    if "targets" in names:
        return list(Target.model_fields)
    tables: dict[str, type[BaseModel]] = {"providers": ProviderEntry, "models": AliasEntry, "prices": PriceEntry}
    return list(tables[names[0]].model_fields)


def _shown(key: KeyPath) -> str:
    """Return ``providers.alpha.base_url: ``; entries of arrays count from 1."""
    text = ""
    for part in key:
        text += f" entry {part + 1}" if isinstance(part, int) else f".{_quoted(part)}"
    return f"{text.lstrip('.')}: " if text else ""


def _quoted(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() and name.isascii() else f'"{name}"'

"""Reads the settings from the environment and describes everything that is wrong with them.

Each problem is a line ``HEADRACE_NAME: problem; remedy``. It never repeats a value, which may be a secret.
"""

import difflib
import os
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from shared.problem_texts import text_of
from shared.setting_types import ConflictsFound, TimeoutChanges
from shared.settings import PREFIX, Settings, SettingsError

#: Read by the command line and by the examples, which are clients; not settings of a process.
_COMMAND_LINE_NAMES: Final = frozenset({"HEADRACE_DATA_DIR", "HEADRACE_URL", "HEADRACE_API_KEY", "HEADRACE_MODEL"})


def load_settings() -> Settings:
    """Read the settings from the environment. Raises :class:`SettingsError` with all problems."""
    problems = [_unknown(name) for name in os.environ if _is_unknown(name)]
    try:
        settings = Settings()
    except ValidationError as error:
        problems += _problems_of(error)
    if problems:
        raise SettingsError("\n".join(problems))
    return settings


def _problems_of(error: ValidationError) -> list[str]:
    """List invalid fields, and conflicts between valid ones.

    pydantic looks for conflicts only if every field is valid. They are therefore looked for again with the defaults
    of the invalid fields; conflicts of a default are left out.
    """
    problems, invalid = [], set[str]()
    for details in error.errors(include_input=False):
        if details["loc"]:
            field = _field_of(str(details["loc"][0]))
            problems.append(f"{_variable(field)}: {_problem_of(details, field)}")
            invalid.add(field)
    try:
        Settings(**{_input_name(field): _default_of(field) for field in invalid})
    except ValidationError as rest:
        for details in rest.errors(include_input=False):
            found = details.get("ctx", {}).get("error")
            if isinstance(found, ConflictsFound):
                problems += [each.message for each in found.conflicts if not each.fields & invalid]
    return problems


def _unknown(name: str) -> str:
    known = {each.removeprefix(PREFIX): each for each in _variables() | _COMMAND_LINE_NAMES}
    close = difflib.get_close_matches(name.removeprefix(PREFIX), known, n=1)
    return f"{name}: unknown setting; " + (f"did you mean {known[close[0]]}?" if close else "remove it")


def _is_unknown(name: str) -> bool:
    return name.startswith(PREFIX) and name not in _variables() | _COMMAND_LINE_NAMES


def _variables() -> set[str]:
    return {_variable(field) for field in Settings.model_fields}


def _variable(field: str) -> str:
    name = _input_name(field)
    return name if name != field else PREFIX + field.upper()


def _input_name(field: str) -> str:
    alias = Settings.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else field


def _field_of(input_name: str) -> str:
    return next(field for field in Settings.model_fields if input_name in {field, _input_name(field)})


def _default_of(field: str) -> Any:
    return Settings.model_fields[field].get_default(call_default_factory=True, validated_data={})


def _problem_of(error: ErrorDetails, field: str) -> str:
    _, *inner = error["loc"] or ("",)
    place = "".join(f"entry {at + 1}: " if isinstance(at, int) else f"{at}: " for at in inner)
    if error["type"] == "extra_forbidden":
        return f"{place}unknown field; use {', '.join(TimeoutChanges.model_fields)}"
    text = text_of(error, None if inner else Settings.model_fields[field])
    return place + (text.replace("set a number", "set a number of seconds") if field.endswith("_s") else text)

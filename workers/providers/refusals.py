"""Finds the fields that a server's refusal names: in ``param``, in pydantic's ``loc``, or in its text.

A field counts as named only where the refusal is about the field. A list of the fields that a server supports names
many, and so does a text about a value that is too large. Texts of a provider are matched here and never kept.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from workers.providers.call_id_forms import CallIdForm
from workers.providers.error_reports import KIND_MEMBERS, TEXT_MEMBERS, key_of, keys_of, levels_of


@dataclass(frozen=True, slots=True)
class RefusableField:
    """A field of a provider's request that is left out or renamed if its server refuses it.

    ``aliases``: further names in refusals. ``path``: the client's field that has no effect without it; None for our
    own fields. ``instead``: the other name of a field that is renamed. ``is_role``: the name is a message's role.
    ``only``: the field is left out only if this is its only member. ``is_form``: the name is a form of thinking,
    such as ``adaptive``. ``id_form``: the form that ids of tool calls get. ``within``: the object of the request that
    has the field as a member. ``is_ours``: the field is the client's only in an original.
    """

    name: str
    aliases: tuple[str, ...] = ()
    path: str | None = None
    instead: str | None = None
    is_role: bool = False
    only: str | None = None
    is_form: bool = False
    id_form: CallIdForm | None = None
    within: str | None = None
    is_ours: bool = False

    def is_in(self, body: Mapping[str, Any]) -> bool:
        """Return True if a request has the field."""
        if self.id_form is not None:
            return self.id_form.is_missed_by(body)
        if self.is_role:
            return any(message.get("role") == self.name for message in body["messages"])
        if self.is_form:
            return _object(body, "thinking").get("type") == self.name
        if self.within is None and self.name in body:
            return self.only is None or set(_object(body, self.name)) == {self.only}
        return self.container(body) is not None

    def container(self, body: Mapping[str, Any]) -> str | None:
        """Return the name of the object of a request that has the field as a member, if one has."""
        if self.within is not None:
            return self.within if self.name in _object(body, self.within) else None
        return next((name for name in _CONTAINERS if self.name in _object(body, name)), None)


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return an object of a request; an empty one for another value. A client may send any in a field of the
    provider's."""
    value = body.get(name)
    return value if isinstance(value, dict) else {}


#: Only the beginning of a text is searched: the rest may be a prompt.
_SEARCHED_CHARACTERS: Final = 400
_NAME_MEMBERS: Final = ("param", "parameter", "field", "property", "argument", "loc")
#: Objects of a request with members that may be refused by themselves.
_CONTAINERS: Final = ("tool_choice", "output_config")
_ROOT: Final = re.compile(r"^(\$\.?|(body|request)\b[.\s]*)+")
#: The path before the message, such as "thinking.type: …".
_PREFIX: Final = re.compile(r"\W*([a-z_]+(?:\.\w+)*)\W{0,2}: ", re.I)
_ROLE_PATH: Final = re.compile(r"messages?\W+\d+\W+(?:\w+\W+)*role$")
_UNSUPPORTED_KINDS: Final = keys_of(
    """unsupported_parameter unknown_parameter unrecognized_parameter unsupported_field unknown_field extra
    extra_forbidden unexpected_keyword_argument additional_properties"""
)
_VALUE_KINDS: Final = keys_of(
    """unsupported_value invalid_value invalid_type literal_error enum invalid_enum_value integer_above_max_value
    integer_below_min_value less_than_equal less_than greater_than_equal greater_than int_parsing int_type"""
)
#: A complaint about a value: the other name would not help.
_ABOUT_VALUE: Final = re.compile(
    r"\b(value|range|large|small|high|low|less|greater|larger|smaller|between|exceed\w*|max(imum)?|min(imum)?|positive"
    r"|integer|out of|must be|should be|at (most|least)|context)\b|[<>\u2264\u2265]",
    re.I,
)
_ABOUT_ONE_VALUE: Final = re.compile(
    r"\bvalues?\b|support(s|ed)? (only )?['\"`]|must be|should be|\b(one of|allowed|expected)\b", re.I
)
_ABOUT_ORDER: Final = re.compile(r"\b(after|before|alternat\w*|order|beginning|first|last|start|end)\b", re.I)
#: The rest of a text lists fields that are supported.
_LIST: Final = re.compile(
    r"\b(expected one of|did you mean|use\b|(supported|allowed|valid|accepted|permitted|available|known)"
    r" (fields?|parameters?|properties|arguments?|keys?|names?|options?|roles?|values?)\b)",
    re.I,
)
#: Words that may stand between a field's name and the words that refuse it.
_FILLER: Final = (
    r"(?:(?:an?|and|argument|arguments|arg|args|attribute|attributes|be|body|by|chat|completions?|currently|do|does"
    r"|extra|field|fields|for|found|given|has|in|input|inputs|is|are|was|were|json|key|keys|keyword|member|members"
    r"|message|messages|model|name|names|option|options|or|param|parameter|parameters|params|payload|properties"
    r"|property|provided|query|received|request|role|roles|s|setting|specifying|supplied|the|these|this|using|value"
    r"|values|with)\b\W+){0,7}"
)
_REFUSED: Final = (
    r"(?:un(?:supported|known|recogni[sz]ed|expected|permitted|allowed|available|implemented)|forbidden|disallowed"
    r"|extra(?:neous)?|additional|deprecated|invalid|removed|disabled|no such"
    r"|(?:not|n't|cannot|never) (?:\w+ )?(?:support|allow|permit|accept|recogni[sz]|valid|available|implement|exist"
    r"|enabled|compatible|find|understand|use)\w*)"
)


_EXPECTED: Final = re.compile(r"\b(?:should be|must be|expected (?:tags|one of)|use)\b", re.I)
_FORM_REFUSED: Final = re.compile(rf"\b{_REFUSED}|does not match|must be|should be|\buse\b", re.I)


def named_fields(raw: object, fields: Collection[RefusableField]) -> dict[RefusableField, bool]:
    """Return those of ``fields`` that a refusal names. True: it refuses only the value that was sent."""
    named: dict[RefusableField, bool] = {}
    for part in _parts(raw):
        for field in fields:
            if field not in named and part.refuses(field):
                named[field] = part.is_about_one_value
    return named


@dataclass(slots=True)
class _Part:
    """One object of a refusal, or one text. ``paths``: the fields that it names in members of their own."""

    text: str
    paths: list[str]
    kinds: frozenset[str]
    input: object = None

    @property
    def is_about_one_value(self) -> bool:
        return bool(_VALUE_KINDS & self.kinds) or (not self.is_explicit and bool(_ABOUT_ONE_VALUE.search(self.text)))

    @property
    def is_explicit(self) -> bool:
        return bool(_UNSUPPORTED_KINDS & self.kinds)

    def refuses(self, field: RefusableField) -> bool:
        if field.id_form is not None:
            return field.id_form.is_refusal(self.text, self.paths)
        if field.is_role:
            return self._refuses_role(field)
        if field.is_form:
            return self._refuses_form(field)
        if not self._is_about(field):
            return False
        if field.instead is None or self.is_explicit or _mentions(field.instead, self.text):
            return True
        return not (_VALUE_KINDS & self.kinds or _ABOUT_VALUE.search(_without_names(field, self.text)))

    def _refuses_form(self, field: RefusableField) -> bool:
        """Return True for a text about thinking that refuses the form, or that expects only the other one."""
        is_about_thinking = _mentions("thinking", self.text) or any(
            path.startswith("thinking") for path in self.paths
        )
        if not (is_about_thinking and _FORM_REFUSED.search(self.text)):
            return False
        refused, *expected = _EXPECTED.split(self.text, maxsplit=1)
        if _mentions(field.name, self.text):
            return _mentions(field.name, refused)
        return any(_mentions(str(field.instead), text) for text in expected)

    def _is_about(self, field: RefusableField) -> bool:
        prefix = _PREFIX.match(self.text)
        if any(_is_at(field, path) for path in (*self.paths, prefix[1] if prefix else "")):
            return True
        if self.paths:  # of another field
            return False
        return bool(_pattern(field).search(_LIST.split(self.text)[0])) or _names_both(field, self.text)

    def _refuses_role(self, field: RefusableField) -> bool:
        in_path = any(_ROLE_PATH.search(path) for path in self.paths)
        if (self.paths and not in_path) or _ABOUT_ORDER.search(self.text):
            return False
        if in_path:
            if isinstance(self.input, str):
                return self.input == field.name
            return _mentions(field.name, _LIST.split(self.text)[0])
        return _mentions("role", self.text) and bool(_pattern(field).search(self.text))


def _parts(raw: object) -> Iterator[_Part]:
    seen: set[str] = set()
    for level in levels_of(raw):
        if isinstance(level, str):
            if level not in seen:
                yield _Part(level[:_SEARCHED_CHARACTERS], [], frozenset())
            continue
        texts = [text for name in TEXT_MEMBERS if isinstance(text := level.get(name), str)]
        seen.update(texts)
        kinds = frozenset(key_of(kind) for name in KIND_MEMBERS if isinstance(kind := level.get(name), str))
        paths = [path for name in _NAME_MEMBERS if (path := _path(level, name))]
        yield _Part(" ".join(texts)[:_SEARCHED_CHARACTERS], paths, kinds, level.get("input"))


def _path(level: Mapping[str, Any], name: str) -> str:
    value = level.get(name)
    text = ".".join(map(str, value)) if isinstance(value, list) else value
    return _ROOT.sub("", text[:_SEARCHED_CHARACTERS]) if isinstance(text, str) else ""


def _is_at(field: RefusableField, path: str) -> bool:
    first, *rest = re.split(r"[.\[]", path, maxsplit=2)
    keys = {key_of(name) for name in (field.name, *field.aliases)}
    containers = _CONTAINERS if field.within is None else (field.within,)
    return key_of(rest[0] if rest and first in containers else first) in keys


@cache
def _pattern(field: RefusableField) -> re.Pattern[str]:
    names = "|".join(map(_spellings, (field.name, *field.aliases)))
    name = rf"(?<![\w.])(?:{names})(?!\w)"
    return re.compile(
        rf"{_REFUSED}\b\W+{_FILLER}{name}|{name}\W+(?:value\W+\S+\W+)?{_FILLER}(?:{_REFUSED}|not one of)"
        rf"|loc\W+body\W+{name}",  # pydantic's report, printed by Python
        re.I,
    )


def _spellings(name: str) -> str:
    return name.replace("_", "[_ -]?")


def _mentions(name: str, text: str) -> bool:
    return re.search(rf"(?<!\w){_spellings(name)}(?!\w)", text, re.I) is not None


def _names_both(field: RefusableField, text: str) -> bool:
    """Return True for a text such as "use max_completion_tokens instead of max_tokens"."""
    if field.instead is None:
        return False
    both = rf"\b{_spellings(field.instead)}\W+(?:rather than|instead of|not)\W+{_FILLER}{_spellings(field.name)}\b"
    return re.search(both, text, re.I) is not None


def _without_names(field: RefusableField, text: str) -> str:
    """Remove the field's names: ``max`` in them is no maximum."""
    return re.sub("|".join(map(_spellings, (field.name, *field.aliases))), "", text, flags=re.I)

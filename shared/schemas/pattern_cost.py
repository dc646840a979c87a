r"""Estimated cost of a regular expression, before it is compiled.

The compiler limits the size of each expression, but it reaches that limit only after some milliseconds, and its
translation of ``\w``, ``\d`` and ``\s`` takes time in the square of their number. The estimate needs one pass over
the characters.
"""

import re
from dataclasses import dataclass
from typing import Final

from shared.schemas.case_folding import folding_cost

#: Longest pattern, in characters.
MAX_PATTERN_LENGTH: Final = 2_000
#: Size from which a single pattern is refused; the compiler has the same limit.
MAX_COMPILED_BYTES: Final = 5_200_000

#: Bytes that compile in the time that any pattern takes, however short.
_PATTERN: Final = 10_000
#: Bytes that compile in the time that a character needs for itself, once, however often it is repeated.
_SIGNS: Final = {"?": 1_600, "{": 1_600, "*": 500, "+": 500, "(": 300, "[": 300, "|": 200}
#: The same for each of the first classes and alternatives: the compiler writes out the texts that they begin with.
_BEGINNING: Final = 6_000
_BEGINNINGS: Final = 4
#: The same for a pattern that may match anywhere, since the compiler builds a search for the texts.
_SEARCH: Final = 200_000
_HAS_CHOICE: Final = re.compile(r"\\d|\[|\||\(\?[a-zA-Z-]*i")
_LITERAL: Final = 80
_WORD: Final = 40_000
#: Estimated bytes of an escape; other letters stand for one character. A class holds ASCII, except in a pattern with
#: lookarounds or references to groups.
_PLAIN: Final = {"w": 300, "d": 100, "s": 800, **dict.fromkeys("WDS", 2_500), **dict.fromkeys("pP", _WORD)}
_UNICODE: Final = {**_PLAIN, **dict.fromkeys("wWD", _WORD), "d": 4_000}
_NEEDS_UNICODE: Final = re.compile(r"\(\?[=!<>(P]|\\[1-9kg]")
_REFERENCES: Final = "123456789kg"
_LOOKAROUND: Final = re.compile(r"\(\?<?[=!]")
_ANY_BUT: Final = 2_500
#: Bytes that compile in the time that the translation of one of these classes needs for each character.
_TRANSLATION: Final = 180
_TRANSLATED: Final = re.compile(r"\\[wWdDsS]")
#: The flag x changes how the rest of the pattern is read: white space may then stand before a repetition.
_VERBOSE: Final = re.compile(r"\(\?[a-zA-Z-]*x")
_IGNORES_CASE: Final = re.compile(r"\(\?[a-zA-Z-]*i")
_REPETITION: Final = re.compile(r"\{\s*(\d{1,9})?\s*(?:(,)\s*(\d{1,9})?\s*)?\}")
_GROUP: Final = re.compile(r"\([^()]*\)")
_BRACES: Final = re.compile(r"\{[^}]*\}")
_CLASS: Final = re.compile(r"\[\^?\]?(?:[^\]\\]|\\.)*\]", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_CASELESS: Final = 3


@dataclass(slots=True)
class PatternCost:
    """``size``: bytes once compiled. ``atoms``: states that a match may have to follow at once.

    Each of the ``lookarounds`` and references may read the string to its end, for each step back. Each of
    ``repeated_lookarounds``, which are in a repeated group, may do so for each character, without a step back.
    """

    size: int
    atoms: int
    lookarounds: int = 0
    repeated_lookarounds: int = 0
    is_lookaround: bool = False
    repeats_in_lookaround: bool = False


def pattern_cost(pattern: str) -> PatternCost:
    """Estimate the cost. Raises ValueError for a pattern that would be too large."""
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise ValueError(f"pattern: may have {MAX_PATTERN_LENGTH} characters; shorten it")
    if _VERBOSE.search(pattern) is not None:
        raise ValueError("pattern: the flag x is not supported; write the pattern without it")
    cost = _Scan(pattern).cost()
    if _IGNORES_CASE.search(pattern) is not None:
        cost.size = cost.size * _CASELESS + folding_cost(pattern)
    cost.size += sum(pattern.count(sign) * size for sign, size in _SIGNS.items())
    cost.size += _BEGINNING * min(pattern.count("[") + pattern.count("|"), _BEGINNINGS)
    if _HAS_CHOICE.search(pattern) is not None and not _is_anchored(pattern):
        cost.size += _SEARCH
    cost.size += len(_TRANSLATED.findall(pattern)) * len(pattern) * _TRANSLATION
    if cost.size > MAX_COMPILED_BYTES:
        raise ValueError("pattern: too large once compiled; shorten it, repeat less, or use minLength and maxLength")
    return cost


def _is_anchored(pattern: str) -> bool:
    """Return True if the pattern certainly matches at the beginning only."""
    begins = pattern.startswith("^") and pattern[1:2] not in ("*", "?", "{")
    outside = _GROUP.sub("", _CLASS.sub("", _ESCAPED.sub("", pattern)))
    return begins and _NEEDS_UNICODE.search(pattern) is None and "|" not in outside


class _Scan:
    """One pass over a pattern. Unbalanced brackets do no harm: the compiler refuses them."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._escapes = _UNICODE if _NEEDS_UNICODE.search(pattern) else _PLAIN
        self._groups = [PatternCost(_PATTERN, 1)]  # the open groups, outermost first
        self._last = PatternCost(0, 0)  # what a repetition repeats; part of the innermost group

    def cost(self) -> PatternCost:
        at = 0
        while at < len(self._pattern):
            at = self._take(at)
        while len(self._groups) > 1:
            self._close()
        return self._groups[0]

    def _take(self, at: int) -> int:
        """Count the atom or the repetition at ``at``; return the position behind it."""
        character = self._pattern[at]
        if character == "(":
            looks = _LOOKAROUND.match(self._pattern, at) is not None
            self._groups.append(PatternCost(_LITERAL, 1, lookarounds=int(looks), is_lookaround=looks))
            return at + 1
        if character == ")":
            if len(self._groups) > 1:
                self._close()
            return at + 1
        if character == "{" and (found := _REPETITION.match(self._pattern, at)) is not None:
            self._repeat(found)
            return found.end()
        if character == "[":
            return self._class(at)
        if character == "\\":
            return self._escape(at)
        if character in "*+":
            self._repeat_lookarounds()
        elif character not in "?|":
            self._add(_ANY_BUT if character == "." else _LITERAL * 3 if ord(character) > 127 else _LITERAL)
        return at + 1

    def _add(self, size: int) -> None:
        self._last = PatternCost(size, 1)
        self._groups[-1].size += size
        self._groups[-1].atoms += 1

    def _close(self) -> None:
        self._last = self._groups.pop()
        group = self._groups[-1]
        group.size += self._last.size
        group.atoms += self._last.atoms
        group.lookarounds += self._last.lookarounds
        group.repeated_lookarounds += self._last.repeated_lookarounds
        group.repeats_in_lookaround |= self._last.repeats_in_lookaround or (
            self._last.is_lookaround and self._last.repeated_lookarounds > 0
        )

    def _repeat_lookarounds(self) -> None:
        """Count the lookarounds of the last group as repeated."""
        more = self._last.lookarounds - self._last.repeated_lookarounds
        self._last.repeated_lookarounds += more
        self._groups[-1].repeated_lookarounds += more
        if self._last.repeats_in_lookaround:
            raise ValueError("pattern: repeats lookarounds that repeat others; write it without one of them")

    def _repeat(self, found: re.Match[str]) -> None:
        least, most = (int(found.group(at) or 0) for at in (1, 3))
        self._repeat_lookarounds()
        times = min(max(least, most, 1), MAX_COMPILED_BYTES)
        more = PatternCost(self._last.size * (times - 1), self._last.atoms * (times - 1))
        group = self._groups[-1]
        group.size, group.atoms = group.size + more.size, group.atoms + more.atoms
        self._last.size, self._last.atoms = self._last.size + more.size, self._last.atoms + more.atoms
        if self._last.size > MAX_COMPILED_BYTES:  # also keeps the numbers small
            raise ValueError("pattern: too many repetitions; use minLength and maxLength")

    def _escape(self, at: int) -> int:
        kind = self._pattern[at + 1 : at + 2]
        self._add(self._escapes.get(kind, _LITERAL))
        if kind and kind in _REFERENCES:
            self._last.lookarounds = 1
            self._groups[-1].lookarounds += 1
        at += 2
        braces = _BRACES.match(self._pattern, at) if kind and kind in "pPuxkgN" else None
        if braces is not None:
            return braces.end()
        return at + 1 if kind and kind in "pP" else at

    def _class(self, at: int) -> int:
        """Count a class in brackets. A bracket or a set operation inside is a character of the class."""
        found = _CLASS.match(self._pattern, at)
        if found is None:  # not closed; the compiler refuses it
            return len(self._pattern)
        text = found.group()
        size = _LITERAL + sum(self._escapes.get(kind, _LITERAL * 3) for kind in _ESCAPED.findall(text))
        size += sum(_LITERAL * 3 if ord(character) > 127 else 8 for character in text)
        self._add(size + (_ANY_BUT if text.startswith("[^") else 0))
        return found.end()

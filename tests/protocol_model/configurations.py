"""Configurations of the model by name: a variant of the protocol, and the faults that may happen.

The comment beside a configuration names its difference from the others.
"""

from dataclasses import replace
from typing import Any, Final

from tests.protocol_model.states import Rules

#: The protocol of docs/protocol-rules.md: rules A5, E3, E4, E5 with R2 and R4, and E6. Rule E1 comes with ``epochs``.
ALL_RULES: Final = Rules(compare="order", restore="guarded", foreign_ending="fresh", reader="fixed", lingers=True)


def _fixed(**changes: Any) -> Rules:
    return replace(ALL_RULES, **changes)


def _but(**changes: Any) -> Rules:
    """All rules except for ``changes``, against an empty Redis, a rollback, a crash and a pause."""
    return _fixed(**{"empty": 1, "rollback": 1, "lost_reply": 0, "epochs": "rising", **changes})


def _small(**changes: Any) -> Rules:
    """All rules except for ``changes``, two attempts, and only the faults that are named."""
    faults = {"crash": 0, "pause": 0, "lost_reply": 0}
    return _fixed(**{"epochs": "rising", "max_attempts": 2, **faults, **changes})


FIRST_DRAFT: Final = {
    "B0": Rules(pause=2, delay=1),  # no loss of data
    "B1": Rules(empty=1, lost_reply=0),
    "B1m": Rules(empty=1, lost_reply=0, claims_missing=True),
    "B1b": Rules(empty=1, crash=0, lost_reply=0, delay=1, restore="blind"),
    "B2": Rules(rollback=1, lost_reply=0),
    "B2f": Rules(rollback=1, pause=0, lost_reply=0, client="flag"),
    "B2e": Rules(rollback=1, crash=0, lost_reply=0, fails_when_lost=True),
    "B3": Rules(empty=1, rollback=1, lost_reply=0),
    "B4": Rules(rollback=1, lost_reply=0, ignore=("I3", "I6", "I5c")),  # behind I3 and I6
    "B5": Rules(empty=1, lost_reply=0, claims_missing=True, ignore=("I3", "I6", "I5c")),
}
ABLATION: Final = {
    "A0": _but(wants_one_answer=True),  # with all rules
    "A1": _but(epochs="next", rollback=0, pause=2),  # without rule E1
    "A1b": _but(epochs="next", empty=0),
    "A2": _but(compare="equality"),  # without rule A5
    "A3": _but(restore="missing"),  # without rule E3
    "A3b": _but(restore="blind"),  # without its conditions
    "A4": _but(foreign_ending="same", fails_when_lost=True),  # without rule E4
    "A5": _but(reader="draft"),  # without rule R4
    "A6": _but(lingers=False, wants_one_answer=True),  # without rule E6
}
FIXED: Final = {
    "F1": _fixed(epochs="rising", empty=1, rollback=1, delay=1, wants_one_answer=True, max_states=5_000_000),
    "F2": _fixed(epochs="random", empty=1, rollback=1, lost_reply=0, wants_one_answer=True),
    "F3": _fixed(epochs="rising", readers=2, empty=1, rollback=1, pause=0, lost_reply=0),
    "F4": _fixed(epochs="rising", rollback=2, lost_reply=0),
    "F5": _fixed(epochs="rising", fails_when_lost=True, empty=1, rollback=1, lost_reply=0, delay=1),
    "F6": _fixed(epochs="rising", claims_missing=True, empty=1, rollback=1, lost_reply=0, max_attempts=2),
    "F1a": _fixed(epochs="rising", max_attempts=2, empty=1, rollback=1, lost_reply=0, delay=1),
    "F1b": _fixed(epochs="rising", empty=1, rollback=1, pause=0),
    "F2a": _fixed(epochs="random", highest_random_epoch=4, rollback=1, lost_reply=0),
    "F2b": _fixed(epochs="random", highest_random_epoch=4, empty=1, rollback=1, crash=0, lost_reply=0),
    "F7": _fixed(epochs="rising", grace=True, empty=1, rollback=1, lost_reply=0),
}
_NO_RESET: Final[dict[str, Any]] = {"crash": 0, "pause": 0, "lost_reply": 0, "forbids_reset": True}
_HEALED: Final[dict[str, Any]] = {"epochs": "rising", "empty": 1, "rollback": 1, "lag_is_bounded": True, **_NO_RESET}
RESETS: Final = {
    "P1d": _fixed(**_HEALED, grace=True, wants_one_answer=True),  # all rules
    "N0b": _but(reader="draft", readers_stay=True, empty=0),  # readers of the first draft that never leave
    "P0": Rules(empty=1, **_NO_RESET),  # first draft
    "P0b": Rules(rollback=1, **_NO_RESET, ignore=("I3", "I6", "I1")),
    "P1": _fixed(**{**_HEALED, "lost_reply": 1}),  # without rule E7
    "P1b": _fixed(**_HEALED, delay=1, grace=True, wants_one_answer=True),  # a late request costs a reset
    "P1c": _fixed(**_HEALED, grace=True, wants_one_answer=True, compare="equality"),  # without rule A5
    "N0": _but(reader="draft", readers_stay=True, rollback=0),
    "N1": _but(readers_stay=True),
}
LEASES: Final = {
    "H0": _but(forbids_older_writer=True),
    "H1": _but(forbids_older_writer=True, lease_in_writes=True, delay=1),
    "H2": _but(forbids_older_writer=True, lease_in_writes=True, rollback=2, empty=0, epochs="random", crash=0),
}
#: A few seconds each; tests/test_protocol_model.py runs them.
SMALL: Final = {
    "G1": _small(empty=1, rollback=1),
    "G2": _small(rollback=1, pause=1),
    "G3": _small(rollback=1, crash=1),
    "G4": _small(rollback=1, delay=1),
    "G5": _small(empty=1, crash=1, lost_reply=1),
    "G6": _small(rollback=1, pause=1, fails_when_lost=True),
}
#: Answers that a successor continues (rule E13).
RESUMED: Final = {
    "S1": _small(crash=1, pause=1, resumes="may"),
    "S2": _small(rollback=1, crash=1, resumes="may"),
    "S3": _small(rollback=1, pause=1, resumes="may"),
    "S4": _small(rollback=1, pause=1, resumes="always"),
    "S5": _small(empty=1, crash=1, lost_reply=1, resumes="may"),
    "S6": _small(rollback=1, pause=1, delay=1, resumes="always"),
    "S7": _small(crash=2, resumes="always", forbids_reset=True, max_attempts=4, wants_one_answer=True),
    "S8": _small(crash=1, pause=1, lost_reply=1, delay=1, resumes="always", max_attempts=3),
    "S9": _small(rollback=2, crash=1, resumes="always"),
}
#: Large ones.
RESUMED_TWICE: Final = {
    "T1": _fixed(epochs="rising", resumes="may", rollback=1, crash=2, pause=0, lost_reply=0),
    "T2": _fixed(epochs="rising", resumes="may", empty=1, rollback=1, crash=1, pause=1, lost_reply=0),
    "T3": _fixed(epochs="rising", resumes="always", rollback=2, crash=2, pause=0, lost_reply=0),
    "T4": _fixed(epochs="random", resumes="always", rollback=1, crash=1, pause=1, lost_reply=1),
    "T5": _fixed(epochs="rising", resumes="may", readers=2, rollback=1, crash=1, pause=0, lost_reply=0),
}
#: G1, G3 or P1d without the rule in the name.
WITHOUT: Final = {
    "without-A5": replace(RESETS["P1d"], compare="equality"),
    "without-E7": replace(RESETS["P1d"], grace=False),
    "without-E1": replace(SMALL["G1"], epochs="next"),
    "without-E3": replace(SMALL["G1"], restore="missing"),
    "without-E3-guard": replace(SMALL["G1"], restore="blind"),
    "without-E4": replace(SMALL["G3"], foreign_ending="same"),
    "without-E6": replace(RESETS["P1d"], lingers=False),
    "without-R4": replace(SMALL["G1"], reader="draft"),
    "without-E13": replace(RESUMED["S3"], ends_at_takeover=False),
}
FAMILIES: Final = {
    "small": SMALL,
    "resumed": RESUMED,
    "resumed_twice": RESUMED_TWICE,
    "without": WITHOUT,
    "first_draft": FIRST_DRAFT,
    "ablation": ABLATION,
    "fixed": FIXED,
    "resets": RESETS,
    "leases": LEASES,
}
CONFIGURATIONS: Final = {name: rules for family in FAMILIES.values() for name, rules in family.items()}

"""Breadth-first search over the states of one variant."""

from collections import deque
from dataclasses import dataclass, field

from tests.protocol_model.invariants import broken_invariant, has_one_answer, is_goal
from tests.protocol_model.states import TOLD_404, Rules, State, Step, Violation
from tests.protocol_model.steps import Model


@dataclass
class Result:
    """Findings of a search. ``violations`` and ``stuck`` map a kind to an example: a text, and the path to it.

    ``stuck``: the goal is out of reach without faults. ``two_answers``: path to a reader that ended with another
    answer than the one that Redis keeps.
    """

    states: int = 0
    transitions: int = 0
    is_complete: bool = True
    violations: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    stuck: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    two_answers: list[str] | None = None

    @property
    def holds(self) -> bool:
        return self.is_complete and not self.violations and not self.stuck and self.two_answers is None


class Search:
    """Breadth-first search. Every state has a number, in the order of discovery."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.model = Model(rules)
        self.result = Result()
        self._numbers: dict[State, int] = {}
        self._came_by: list[tuple[int, str]] = []  # the state before, and the label of the step
        self._goals: list[int] = []
        self._into: list[list[int]] = []  # states that lead to each one without a fault
        self._waiting: deque[State] = deque()

    def run(self, *, stops_at_first: bool = False) -> Result:
        self._add(self.model.first(), 0, "")
        while self._waiting:
            self._look_at(self._waiting.popleft())
            if stops_at_first and self.result.violations:
                break
            if len(self._came_by) > self.rules.max_states:
                self.result.is_complete = False
                break
        self.result.states = len(self._came_by)
        if self.result.is_complete and not (stops_at_first and self.result.violations):
            self._find_stuck()
        return self.result

    def _look_at(self, now: State) -> None:
        number = self._numbers[now]
        if is_goal(now):
            self._goals.append(number)
        if self.rules.wants_one_answer and self.result.two_answers is None and not has_one_answer(now):
            self.result.two_answers = self._path_to(number)
        for step in self.model.steps(now):
            self.result.transitions += 1
            if step.violation is not None and self._cuts(number, step, step.violation):
                continue
            known = self._numbers.get(step.state)
            there = self._add(step.state, number, step.label) if known is None else known
            if not step.is_fault and there != number:
                self._into[there].append(number)

    def _cuts(self, number: int, step: Step, violation: Violation) -> bool:
        seen: Violation | None = violation
        if violation.kind in self.rules.ignore:
            seen = broken_invariant(step.state)
        if seen is None or seen.kind in self.rules.ignore:
            return False
        if seen.kind not in self.result.violations:
            self.result.violations[seen.kind] = (seen.text, [*self._path_to(number), step.label])
        if not step.is_fault:
            self._goals.append(number)  # a cut branch must not look like a state without a way out
        return True

    def _add(self, state: State, before: int, label: str) -> int:
        number = self._numbers[state] = len(self._came_by)
        self._came_by.append((before, label))
        self._into.append([])
        self._waiting.append(state)
        return number

    def _path_to(self, number: int) -> list[str]:
        labels: list[str] = []
        while number:
            number, label = self._came_by[number]
            labels.append(label)
        return labels[::-1]

    def _find_stuck(self) -> None:
        good = bytearray(len(self._came_by))
        waiting = list(self._goals)
        for number in waiting:
            good[number] = True
        while waiting:
            for before in self._into[waiting.pop()]:
                if not good[before]:
                    good[before] = True
                    waiting.append(before)
        for state, number in self._numbers.items():
            is_wrong = any(reader.phase == TOLD_404 for reader in state.readers)
            kind = "a reader got 404 although a worker holds the stream" if is_wrong else "stuck"
            if not good[number] and kind not in self.result.stuck:
                self.result.stuck[kind] = ("the goal cannot be reached without faults", self._path_to(number))


def explore(rules: Rules, *, stops_at_first: bool = False) -> Result:
    return Search(rules).run(stops_at_first=stops_at_first)

"""Diagram of the transitions of a stream, in docs/protocol-rules.md: `python -m tests.transitions` writes it."""

from pathlib import Path

from shared.protocol.lifecycle import TRANSITIONS, Status, Step

DOCUMENT = Path(__file__).parent.parent / "docs" / "protocol-rules.md"
BEGIN, END = "<!-- transitions: generated -->\n", "<!-- end -->\n"


def diagram() -> str:
    """The table of transitions as a mermaid diagram; [*] is a stream without a state."""
    lines = ["```mermaid", "stateDiagram-v2"]
    for before, row in TRANSITIONS.items():
        steps: dict[Status | None, list[Step]] = {}
        for step, after in row.items():
            steps.setdefault(after, []).append(step)
        lines += [
            f"    {before or '[*]'} --> {after or '[*]'} : {', '.join(names)}" for after, names in steps.items()
        ]
    return "\n".join([*lines, "```", ""])


def with_diagram(text: str) -> str:
    """The document with the diagram of today's table."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    assert begin, f"{DOCUMENT.name} has no line {BEGIN!r}"
    assert end, f"{DOCUMENT.name} has no line {END!r}"
    return f"{head}{begin}{diagram()}{end}{tail}"


if __name__ == "__main__":
    DOCUMENT.write_text(with_diagram(DOCUMENT.read_text()))

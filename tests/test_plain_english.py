"""Rules for texts and sizes: docstrings, lines of the documentation, paths that they name, lengths of files."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

REPOSITORY: Final = Path(__file__).resolve().parent.parent
PACKAGES: Final = ("headrace", "gateway", "workers", "shared", "tests", "bench", "clients", "conformance")
#: A wh-word, a preposition, or a parameter instead of a head noun.
BAD_OPENER: Final = re.compile(
    r"(What|Who|Whom|Whose|Where|Whether|As|Of|To|For|By|In|On|With|From|Behind|Beside|At)\b|`"
)
BAD_WORD: Final = re.compile(r"\b(what|who|whom|whose|whoever|whatever|nobody|somebody)\b", re.IGNORECASE)
MOST_BAD_OPENERS: Final = 0.02
MOST_BAD_WORDS_PER_1000: Final = 3
LONGEST_LINE: Final = 120
LONGEST_TEST: Final = 600
LONGEST_MODULE: Final = 300
#: Modules that may be longer, with the reason.
LONG_MODULES: Final = {
    "shared/errors.py": "one tree of all errors",
    "shared/broker/scripts.py": "one typed declaration for each Lua script",
    "shared/broker/keys.py": "one table of all keys",
}
PATH: Final = re.compile(
    r"(?<![\w./-])((?:headrace|gateway|workers|shared|tests|bench|docs|deploy|examples|clients|\.ci)/[\w./-]+"
    r"\.(?:py|lua|md|js|mjs|json|toml|ya?ml|conf|css|html|tsx?|txt))(?![\w*])"
)
REFERENCE: Final = re.compile(r":\w+:`[~.]?((?:headrace|gateway|workers|shared|tests)(?:\.\w+)+)`")


def modules(*packages: str) -> list[Path]:
    found = [path for package in packages for path in (REPOSITORY / package).rglob("*.py")]
    # Hidden folders have others' code: `make bench-peers` installs programs into bench/.peers.
    found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(REPOSITORY).parts)]
    return sorted(path for path in found if "node_modules" not in path.parts)


def documents() -> list[Path]:
    packages = [*REPOSITORY.glob("clients/*/README.md"), REPOSITORY / "conformance" / "README.md"]
    return sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md"), *packages])


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


@cache
def docstrings() -> list[tuple[str, str]]:
    """Return all docstrings, each with its place."""
    found = []
    for path in modules(*PACKAGES):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text:
                    found.append((f"{name_of(path)}:{getattr(node, 'lineno', 1)}", text))
    return found


def comments(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the comments of a Python module, each with its place."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.COMMENT:
            yield f"{name_of(path)}:{token.start[0]}", token.string


def fail_with(title: str, places: list[str]) -> None:
    pytest.fail("\n  ".join((title, *places)), pytrace=False)


def test_docstrings_open_with_a_verb_or_a_noun() -> None:
    bad = [f"{place}: {text.splitlines()[0]}" for place, text in docstrings() if BAD_OPENER.match(text)]
    share = len(bad) / len(docstrings())
    if share >= MOST_BAD_OPENERS:
        fail_with(f"{len(bad)} of {len(docstrings())} docstrings ({share:.1%}) open badly:", bad)


def test_docstrings_have_nouns_instead_of_clauses() -> None:
    words = sum(len(text.split()) for _, text in docstrings())
    bad = [f"{place}: {match[0]}" for place, text in docstrings() for match in BAD_WORD.finditer(text)]
    rate = len(bad) * 1000 / words
    if rate >= MOST_BAD_WORDS_PER_1000:
        fail_with(f"{len(bad)} such words in {words} ({rate:.1f} per 1,000):", bad)


def prose_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a document outside of tables, fenced code and indented code."""
    fenced = False
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith(("|", "    ", "\t")):
            yield number, line


def test_lines_of_the_documentation_are_short() -> None:
    """A line without a space, such as a long link, cannot be broken."""
    long = [
        f"{name_of(path)}:{number}: {len(line)} columns"
        for path in documents()
        for number, line in prose_lines(path)
        if len(line) > LONGEST_LINE and " " in line.strip("- ")
    ]
    if long:
        fail_with(f"{len(long)} lines are longer than {LONGEST_LINE} columns:", long)


def texts() -> Iterator[tuple[str, str]]:
    """Yield documents by line, docstrings, comments, and other sources by line, each with its place."""
    others = [REPOSITORY / name for name in ("Makefile", "pyproject.toml", ".env.example")]
    for pattern in ("shared/**/*.lua", "gateway/page/**/*.js", "deploy/**/*.y*ml", "deploy/**/*.conf", ".ci/*"):
        others += [path for path in REPOSITORY.glob(pattern) if "vendor" not in path.parts and path.is_file()]
    for path in [*documents(), *others]:
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            yield f"{name_of(path)}:{number}", line
    yield from docstrings()
    for path in modules(*PACKAGES):
        yield from comments(path)


def test_every_path_that_a_text_names_exists() -> None:
    missing = [
        f"{place}: {match[1]}"
        for place, text in texts()
        for match in PATH.finditer(text)
        if not (REPOSITORY / match[1]).exists()
    ]
    if missing:
        fail_with(f"{len(missing)} paths do not exist:", missing)


def test_every_reference_of_a_docstring_resolves() -> None:
    missing = [
        f"{place}: {match[1]}"
        for place, text in texts()
        for match in REFERENCE.finditer(text)
        if not _resolves(match[1].split("."))
    ]
    if missing:
        fail_with(f"{len(missing)} references do not resolve:", missing)


def _resolves(parts: list[str]) -> bool:
    for length in range(len(parts), 0, -1):
        module = REPOSITORY.joinpath(*parts[:length])
        for source in (module.with_suffix(".py"), module / "__init__.py"):
            if source.exists():
                names = set(re.findall(r"\w+", source.read_text()))
                return names.issuperset(parts[length:])
    return False


def test_no_file_is_too_long() -> None:
    long = []
    for path in modules(*PACKAGES):
        limit = LONGEST_TEST if path.is_relative_to(REPOSITORY / "tests") else LONGEST_MODULE
        lines = len(path.read_text().splitlines())
        if lines > limit and name_of(path) not in LONG_MODULES:
            long.append(f"{name_of(path)}: {lines} lines, limit {limit}")
    if long:
        fail_with(f"{len(long)} files are too long; split them, or add them to LONG_MODULES with a reason:", long)

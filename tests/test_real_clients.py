"""The table of programs stays whole: it has a line for every pinned version, and two writers share the document. The
programs themselves are run by ``make real-clients``."""

from tests.conformance.matrix import Matrix as SdkMatrix
from tests.conformance.table import written as sdk_table_written
from tests.real_clients.matrix import Matrix
from tests.real_clients.programs import PROGRAMS
from tests.real_clients.table import DOCUMENT, written


def test_the_table_has_a_line_for_every_pinned_version() -> None:
    document = DOCUMENT.read_text()
    assert written(document, PROGRAMS, [], Matrix()) == document, "make real-clients writes the table"


def test_the_two_writers_of_the_document_keep_each_others_table() -> None:
    document = DOCUMENT.read_text()
    begin = "<!-- written by make real-clients -->"
    assert sdk_table_written(document, SdkMatrix()).partition(begin)[2] == document.partition(begin)[2]
    failed = Matrix(failed={(PROGRAMS[0].name, str(PROGRAMS[0].ways[0]), "text"): "a traceback"})
    changed = written(document, PROGRAMS, PROGRAMS[:1], failed)
    assert changed.partition(begin)[0] == document.partition(begin)[0]
    assert "| ✗ |" in changed.partition(begin)[2]


def test_a_cell_that_was_not_run_is_not_green() -> None:
    program = PROGRAMS[0]
    partly = Matrix(passed={(program.name, str(program.ways[0]), "text")})
    table = written(DOCUMENT.read_text(), PROGRAMS, [program], partly).partition("make real-clients -->\n")[2]
    assert "✓" not in next(line for line in table.splitlines() if program.packages[0] in line)


def test_a_cell_names_the_reason_of_the_pairs_without_it() -> None:
    column = "image by a tool"
    program = next(program for program in PROGRAMS if {bool(way.lacks) for way in program.ways} == {True, False})
    names = [(program.name, str(way), column) for way in program.ways if not way.lacks]
    for passed, result in ((names, "✓, chat: i"), (names[1:], "z, chat: i")):
        table = written(DOCUMENT.read_text(), PROGRAMS, [program], Matrix(passed=set(passed)))
        lines = [[cell.strip() for cell in line.split("|")] for line in table.splitlines()]
        place = next(cells for cells in lines if column in cells).index(column)
        line = next(cells for cells in lines if cells[1:2] and cells[1].startswith(f"`{program.packages[0]}`"))
        assert line[place] == result

"""``python -m tests.real_clients``: install the programs, run the matrix and write its table into
``docs/compatibility.md``. Names of programs run these only and write their lines; ``column=…`` runs a part of the
columns and writes nothing, as does ``--direct``, without a gateway. ``--nightly`` includes the heavy programs. The
exit status is 1 if a cell failed."""

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.real_clients.install import InstallFailed, install
from tests.real_clients.matrix import COLUMNS, OWN_COLUMNS, run_matrix
from tests.real_clients.program import Program
from tests.real_clients.programs import PROGRAMS
from tests.real_clients.table import DOCUMENT, written


async def main(arguments: list[str]) -> int:
    """Return the exit status."""
    columns = [argument.partition("=")[2] for argument in arguments if argument.startswith("column=")]
    direct = "--direct" in arguments
    names = {argument for argument in arguments if "=" not in argument and not argument.startswith("-")}
    if unknown := names - {program.name for program in PROGRAMS}:
        print(f"{', '.join(sorted(unknown))}: no such program; known: {', '.join(p.name for p in PROGRAMS)}")
        return 2
    chosen = [p for p in PROGRAMS if p.name in names or (not names and ("--nightly" in arguments or not p.heavy))]
    installed, failed = await _install(chosen)
    with tempfile.TemporaryDirectory() as folder:
        wanted = [column for column in (*COLUMNS, *OWN_COLUMNS) if not columns or column in columns]
        matrix = await run_matrix(Path(folder), installed, wanted, direct=direct)
    for name, trace in matrix.failed.items():
        print(f"--- {' · '.join(name)}\n{trace}")
    print(f"{len(matrix.passed)} cells passed, {len(matrix.failed)} failed")
    if not columns and not direct:
        DOCUMENT.write_text(written(DOCUMENT.read_text(), PROGRAMS, installed, matrix))
    return int(bool(matrix.failed) or failed)


async def _install(programs: list[Program]) -> tuple[list[Program], bool]:
    """Return the programs that are installed, and whether another one failed."""
    installed = []
    for program in programs:
        try:
            await install(program)
            installed.append(program)
        except InstallFailed as error:
            print(f"{program.name}: not installed\n{error}")
    return installed, len(installed) < len(programs)


sys.exit(asyncio.run(main(sys.argv[1:])))

"""The server's wheel contains the client libraries, see docs/adr/0022-client-libraries.md, the migrations of the
archive, and all files of the pages."""

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.system import REPOSITORY

#: Each library's folder, and its place in the wheel.
LIBRARIES = {"clients/python/headrace_client": "headrace_client", "clients/javascript/src": "gateway/page/client"}

PAGE = REPOSITORY / "gateway" / "page"
MIGRATIONS = "shared/archive/migrations"


def test_the_wheel_has_the_files_of_both_libraries(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        migrations = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / MIGRATIONS).rglob("*.py")}
        assert migrations
        assert migrations <= set(names)
        assert {f"gateway/page/{path.relative_to(PAGE)}" for path in PAGE.rglob("*") if path.is_file()} <= set(names)
        for folder, place in LIBRARIES.items():
            source = REPOSITORY / folder
            files = {f"{place}/{path.name}": path for path in source.iterdir() if path.is_file()}
            assert {name for name in names if name.startswith(f"{place}/")} == set(files)
            assert all(packed.read(name) == path.read_bytes() for name, path in files.items())


def test_both_libraries_have_the_license_of_the_server() -> None:
    for folder in ("python", "javascript"):
        assert (REPOSITORY / "clients" / folder / "LICENSE").read_bytes() == (REPOSITORY / "LICENSE").read_bytes()

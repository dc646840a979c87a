"""The page's modules load at once: without the list in its head, a browser finds them one import after the other."""

import hashlib
import re
from pathlib import Path

import gateway
from tests.system import REPOSITORY

_PAGE = Path(gateway.__file__ or "").parent / "page"
_CLIENT = REPOSITORY / "clients" / "javascript" / "src"
_IMPORT = re.compile(r'^(?:import|export)\b[^;"]*?"(\./[^"]+)";', re.MULTILINE | re.DOTALL)
_PRELOAD = re.compile(r'<link rel="modulepreload" href="([^"]+)">')


def _file(path: str) -> Path:
    if path.startswith("/page/client/"):
        return _CLIENT / path.removeprefix("/page/client/")
    return _PAGE / path.removeprefix("/page/")


def imported(path: str, found: set[str]) -> set[str]:
    """Return the paths of all modules that ``path`` imports statically."""
    folder = path.rsplit("/", 1)[0]
    for other in _IMPORT.findall(_file(path).read_text()):
        target = f"{folder}/{other.removeprefix('./')}"
        if target not in found:
            found.add(target)
            imported(target, found)
    return found


def test_all_modules_of_the_page_are_preloaded() -> None:
    listed = _PRELOAD.findall((_PAGE / "index.html").read_text())
    needed = imported("/page/app.js", set())
    assert sorted(listed) == sorted(needed), "gateway/page/index.html: list exactly the modules that app.js imports"
    assert not [path for path in needed if re.search("uqr|highlight.min|temml", path)]


def test_the_page_loads_at_most_300_kilobytes() -> None:
    """Everything that is not imported on demand counts, uncompressed."""
    paths = {"/page/app.js", "/page/style.css", "/page/index.html", "/page/icon.svg"} | imported(
        "/page/app.js", set()
    )
    size = sum(_file(path).stat().st_size for path in paths)
    assert size <= 300_000, f"the page loads {size} bytes; import on demand what few visits need"


def test_vendored_files_are_those_of_the_table() -> None:
    folder = _PAGE / "vendor"
    table = dict(re.findall(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", (folder / "README.md").read_text(), re.M))
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.[jc]s*")}
    assert table == {name: digest for name, digest in found.items() if "LICENSE" not in name}

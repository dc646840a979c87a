"""The page's modules load at once: without the list in its head, a browser finds them one import after the other."""

import re
from pathlib import Path

import gateway
from tests.system import REPOSITORY

_PAGE = Path(gateway.__file__ or "").parent / "page"
_CLIENT = REPOSITORY / "clients" / "javascript" / "src"
_IMPORT = re.compile(r'^(?:import|export)\b[^;"]*?"(\./[^"]+)";', re.MULTILINE | re.DOTALL)
_PRELOAD = re.compile(r'<link rel="modulepreload" href="([^"]+)">')


def imported(path: str, found: set[str]) -> set[str]:
    """Return the paths of all modules that ``path`` imports statically."""
    folder, name = path.rsplit("/", 1)
    source = (_CLIENT if folder == "/page/client" else _PAGE / folder.removeprefix("/page").strip("/")) / name
    for other in _IMPORT.findall(source.read_text()):
        target = f"{folder}/{other.removeprefix('./')}"
        if target not in found:
            found.add(target)
            imported(target, found)
    return found


def test_all_modules_of_the_page_are_preloaded() -> None:
    listed = _PRELOAD.findall((_PAGE / "index.html").read_text())
    needed = imported("/page/app.js", set())
    assert sorted(listed) == sorted(needed), "gateway/page/index.html: list exactly the modules that app.js imports"
    assert not [path for path in needed if "uqr" in path]

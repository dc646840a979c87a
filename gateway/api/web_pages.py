"""The chat page, the operators' page, the API's description and their files, with headers that allow no scripts but
their own."""

from pathlib import Path
from typing import Final

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

router = APIRouter()

_FOLDER: Final = Path(__file__).parent.parent / "page"
_IN_WHEEL: Final = _FOLDER / "client"
#: The JavaScript client library. A wheel has it in the page's folder, a source tree only once, in its own.
_CLIENT: Final = _IN_WHEEL if _IN_WHEEL.is_dir() else _FOLDER.parent.parent / "clients" / "javascript" / "src"
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # tickets are in URLs
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # frame-ancestors, for browsers without support for it
    # Revalidated on each use (304 if unchanged), so that an upgrade never mixes old and new modules.
    "Cache-Control": "no-cache",
}


class PageFiles(StaticFiles):
    def __init__(self, folder: Path) -> None:
        super().__init__(directory=folder)

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response


def mount_files(app: FastAPI) -> None:
    """Serve the files of the pages under ``/page``, and the client library that they import."""
    app.mount("/page/client", PageFiles(_CLIENT))
    app.mount("/page", PageFiles(_FOLDER))


@router.get("/", include_in_schema=False)
async def index() -> FileResponse:
    return FileResponse(_FOLDER / "index.html", headers=_HEADERS)


@router.get("/docs", include_in_schema=False)
async def docs() -> FileResponse:
    """Serve the viewer of ``/openapi.json``."""
    return FileResponse(_FOLDER / "docs" / "index.html", headers=_HEADERS)


@router.get("/ops", include_in_schema=False)
async def ops() -> FileResponse:
    """Serve the operators' page; the page is public, its data is not."""
    return FileResponse(_FOLDER / "ops" / "index.html", headers=_HEADERS)

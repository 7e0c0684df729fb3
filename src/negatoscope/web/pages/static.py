"""Style sheets, scripts and pictures of the pages, below ``/static``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from negatoscope.errors import NotFound
from negatoscope.web.pages.common import STATIC
from negatoscope.web.viewer import accepts_gzip, media_type

FOLDERS = ("css", "js", "img", "vendor")
FOR_EVER = "public, max-age=31536000, immutable"  # when the address names the version
A_WHILE = "public, max-age=300"


@cache
def files() -> Mapping[str, Path]:
    """Address below ``/static/`` -> file. Looked up, never joined to a path, so none can lead outside."""
    return {
        path.relative_to(STATIC).as_posix(): path
        for folder in FOLDERS
        for path in sorted((STATIC / folder).glob("*"))
        if path.is_file() and path.suffix != ".gz" and not path.name.startswith(".")
    }


async def serve_static(request: Request) -> Response:
    path = files().get(request.path_params["path"])
    if path is None:
        raise NotFound("no such file")
    caching = FOR_EVER if "v" in request.query_params else A_WHILE
    headers = {"Cache-Control": caching, "Vary": "Accept-Encoding"}
    twin = path.with_name(path.name + ".gz")
    if twin.exists() and "range" not in request.headers and accepts_gzip(request.headers.get("accept-encoding", "")):
        headers["Content-Encoding"] = "gzip"
        return FileResponse(twin, media_type=media_type(path.name), headers=headers)
    return FileResponse(path, media_type=media_type(path.name), headers=headers)


static_route = Route("/static/{path:path}", serve_static, methods=["GET"], name="static")

"""The page's own files: read once, served from memory, nothing outside the folder reachable."""

from __future__ import annotations

import hashlib
from importlib import resources
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response

CONTENT_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}


class Assets:
    """All files under `dashboard/assets` by their path there."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, str, str]] = {}
        self._read(resources.files("matchday.dashboard") / "assets", "")

    async def asset(self, request: Request) -> Response:
        """Answer `/assets/{path}`; a browser that has the file gets only 304."""
        return self.answer(request.path_params["path"], request)

    async def page(self, request: Request) -> Response:
        """Answer `/` with the live page."""
        return self.answer("index.html", request)

    def answer(self, path: str, request: Request) -> Response:
        """Give one file, or 404."""
        found = self._files.get(path)
        if found is None:
            return Response("no such file", 404, media_type="text/plain")
        body, content_type, tag = found
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, headers={**headers, "Content-Type": content_type})

    def _read(self, folder: Traversable, prefix: str) -> None:
        for entry in folder.iterdir():
            if entry.is_dir():
                self._read(entry, f"{prefix}{entry.name}/")
                continue
            content_type = CONTENT_TYPES.get(entry.name.rpartition(".")[2])
            if content_type is not None:
                body = entry.read_bytes()
                tag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
                self._files[prefix + entry.name] = (body, content_type, tag)

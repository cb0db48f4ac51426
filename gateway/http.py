"""What a browser may fetch from a client port: the health report, and the files of one folder."""

from __future__ import annotations

import logging
import mimetypes
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec

__all__ = ["HEALTH_PATH", "Site", "encode_answer", "error_answer", "health_answer"]

logger = logging.getLogger(__name__)

HEALTH_PATH = "/healthz"
# A page and its scripts, not downloads: a file is read whole.
MAX_FILE = 16 * 1024 * 1024

# Not left to `mimetypes` alone, which asks the machine: a script served as text/plain does not run, given nosniff.
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
}


def encode_answer(status: HTTPStatus, body: bytes, content_type: str = "text/plain; charset=utf-8") -> bytes:
    """Return a whole HTTP/1.1 response; the connection is to be closed after it (RFC 9112 section 9.6)."""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"Content-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Cache-Control: no-cache\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + body


def error_answer(status: HTTPStatus) -> bytes:
    """Return the response that says no more than its status."""
    return encode_answer(status, f"{status.value} {status.phrase}\n".encode())


def health_answer(health: Mapping[str, Any]) -> bytes:
    """Return the health report: 200, or 503 if its member `ok` is False. Raises TypeError for what JSON cannot say."""
    status = HTTPStatus.SERVICE_UNAVAILABLE if health.get("ok") is False else HTTPStatus.OK
    return encode_answer(status, msgspec.json.encode(dict(health)), "application/json")


class Site:
    """The files below one folder; none at all if `root` is None.

    Nothing outside the folder is served, whichever way it is asked for: dot segments, percent-encoding, backslashes,
    symbolic links that lead out. Hidden files (a name that begins with a dot) are not served either.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = None if root is None else root.resolve()

    def answer(self, target: str) -> bytes:
        """Return the whole response to a GET of this request target. Blocks on the disk: not for the loop."""
        try:
            path = self._find(target)
            if path is None:
                return error_answer(HTTPStatus.NOT_FOUND)
            with path.open("rb") as file:
                body = file.read(MAX_FILE + 1)
        except (OSError, ValueError, RuntimeError) as error:  # unreadable; a NUL in the path; links in a circle
            logger.warning("cannot serve %r: %s", target, error)
            return error_answer(HTTPStatus.NOT_FOUND)
        if len(body) > MAX_FILE:
            logger.warning("cannot serve %r: larger than %d bytes", target, MAX_FILE)
            return error_answer(HTTPStatus.NOT_FOUND)
        return encode_answer(HTTPStatus.OK, body, _content_type(path))

    def _find(self, target: str) -> Path | None:
        if self._root is None:
            return None
        # Decoded once and only once: what is still encoded after that is a file's name.
        name = unquote(target.partition("?")[0].partition("#")[0])
        if "\\" in name or any(part.startswith(".") for part in name.split("/")):
            return None
        path = (self._root / (name.lstrip("/") + ("index.html" if name.endswith("/") else ""))).resolve()
        return path if path.is_relative_to(self._root) and path.is_file() else None


def _content_type(path: Path) -> str:
    known = _TYPES.get(path.suffix.lower())
    return known or mimetypes.guess_type(path.name)[0] or "application/octet-stream"

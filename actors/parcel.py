"""How a game's files reach the nodes of a cluster: packed where the command runs, unpacked beside each server. Pure."""

import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from actors.game import Game, ServerSpec, TlsFiles

__all__ = ["LARGEST", "ParcelError", "packed", "unpacked"]

LARGEST = 100 << 20
"""Bytes of a parcel at most: Ray keeps it in the head service's memory, and hands it to every node."""
INSIDE = "pummelo-game"
"""The parcel's one folder. Ray puts the parcel first on ``sys.path``, the game's folder goes last: the name cannot be
imported, so a game's ``random.py`` shadows nothing there either."""
LEFT_BEHIND = frozenset(
    {
        *("__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".tox", ".nox"),
        *(".git", ".hg", ".svn", ".idea", ".vscode", ".venv", "venv", "node_modules"),
    }
)
"""Folders that no server needs, wherever they are. Files that git ignores do travel: a built web page, a key."""
_EPOCH = (1980, 1, 1, 0, 0, 0)


class ParcelError(Exception):
    """The game's folder cannot be packed; the message is one line."""


def packed(folder: Path) -> bytes:
    """Return a zip archive of a game's folder, the same bytes for the same files.

    Links are followed. Raises ParcelError when it is larger than 100 MiB, or a file cannot be read.
    """
    archive = io.BytesIO()
    sizes: dict[str, int] = {}
    try:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as parcel:
            for path in _files(folder):
                name = path.relative_to(folder).as_posix()
                sizes[name] = path.stat().st_size
                # Before it is read: a game beside a database of many gigabytes should be told at once.
                if sum(sizes.values()) > 10 * LARGEST:
                    raise _too_large(folder, sizes)
                parcel.writestr(_entry(name, path), path.read_bytes())
                if archive.tell() > LARGEST:
                    raise _too_large(folder, sizes)
    except OSError as error:
        raise ParcelError(f"the game's folder cannot be packed: {error.filename}: {error.strerror}") from error
    return archive.getvalue()


def unpacked(game: Game, spec: ServerSpec, place: Path) -> tuple[Game, ServerSpec]:
    """Return a game and one of its servers as they are on a node, where Ray unpacked the parcel in ``place``.

    Both are unchanged when the game did not travel. Paths outside the game's folder stay what they are.
    """
    if not game.parcel:
        return game, spec
    folder = place / INSIDE

    def here(path: Path) -> Path:
        return folder / path.relative_to(game.folder) if path.is_relative_to(game.folder) else path

    tls = spec.tls and TlsFiles(str(here(Path(spec.tls.certificate))), str(here(Path(spec.tls.key))))
    return replace(game, folder=folder), replace(spec, web=spec.web and here(spec.web), tls=tls)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files that travel, in an order of their own."""
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        # A link to a folder above would lead round and round.
        if (real := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if name not in LEFT_BEHIND)
        for name in sorted(files):
            path = Path(parent, name)
            # Neither sockets and pipes, which reading would wait for, nor links to nothing.
            if path.is_file():
                yield path


def _entry(name: str, path: Path) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(f"{INSIDE}/{name}", _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (path.stat().st_mode & 0o777) << 16
    return entry


def _too_large(folder: Path, sizes: dict[str, int]) -> ParcelError:
    name = max(sizes, key=sizes.__getitem__)
    return ParcelError(
        f"the game's folder {folder} is too large to travel to the cluster's nodes ({LARGEST >> 20} MiB packed); "
        f"{name} alone has {sizes[name] >> 20} MiB: move what the servers do not need elsewhere"
    )

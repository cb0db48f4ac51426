"""How a game's files travel to the nodes."""

import io
import os
import zipfile
from pathlib import Path

import pytest

from actors import parcel
from actors.game import Game, ServerSpec, TlsFiles
from actors.parcel import ParcelError, packed, unpacked


def names(archive: bytes) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(archive)).namelist()


def game_in(folder: Path) -> Path:
    for name in (
        "app.py",
        "web/index.html",
        "maps/1.json",
        ".git/config",
        "web/node_modules/a.js",
        ".env",
        "random.py",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def test_all_that_lies_in_the_folder_travels_but_for_what_no_server_needs(tmp_path: Path) -> None:
    (game_in(tmp_path) / ".gitignore").write_text("maps\nweb")
    assert sorted(names(packed(tmp_path))) == [
        "pummelo-game/.env",
        "pummelo-game/.gitignore",
        "pummelo-game/app.py",
        "pummelo-game/maps/1.json",
        "pummelo-game/random.py",
        "pummelo-game/web/index.html",
    ]


def test_nothing_in_a_parcel_can_be_imported_from_its_root(tmp_path: Path) -> None:
    assert not any(name.split("/")[0].isidentifier() for name in names(packed(game_in(tmp_path))))


def test_the_same_files_make_the_same_parcel_and_others_another(tmp_path: Path) -> None:
    first = packed(game_in(tmp_path))
    os.utime(tmp_path / "app.py", (1, 1))
    assert packed(tmp_path) == first
    (tmp_path / "app.py").write_text("other")
    assert packed(tmp_path) != first


def test_links_are_followed_but_not_round_and_round_and_what_is_no_file_stays(tmp_path: Path) -> None:
    game, shared = tmp_path / "game", tmp_path / "shared"
    game.mkdir()
    shared.mkdir()
    (shared / "rules.py").write_text("x = 1")
    (game / "shared").symlink_to(shared)
    (shared / "back").symlink_to(game)
    (game / "dangling").symlink_to(tmp_path / "nothing")
    os.mkfifo(game / "pipe")
    assert names(packed(game)) == ["pummelo-game/shared/rules.py"]


def test_a_folder_that_is_too_large_is_told_in_one_line_with_its_largest_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parcel, "LARGEST", 2 << 20)
    (game_in(tmp_path) / "film.bin").write_bytes(os.urandom(3 << 20))
    with pytest.raises(ParcelError, match=r"too large .* \(2 MiB packed\); film\.bin alone has 3 MiB") as told:
        packed(tmp_path)
    assert "\n" not in str(told.value)
    (tmp_path / "film.bin").unlink()
    with (tmp_path / "zeros.bin").open("wb") as sparse:
        sparse.truncate(1 << 40)
    with pytest.raises(ParcelError, match=r"zeros\.bin"):
        packed(tmp_path)


def test_a_server_finds_the_game_where_it_was_unpacked() -> None:
    home, place = Path("/home/me/game"), Path("/ray/unpacked")
    game = Game(name="g", app="app:app", folder=home, servers=(), parcel="gcs://pummelo_g_1.zip")
    spec = ServerSpec(
        id="gate-1",
        type="gate",
        frontend=True,
        web=home / "web",
        tls=TlsFiles(str(home / "tls" / "cert.pem"), "/etc/ssl/key.pem"),
    )
    there, server = unpacked(game, spec, place)
    assert there.folder == place / "pummelo-game"
    assert server.web == place / "pummelo-game" / "web"
    assert server.tls == TlsFiles(str(place / "pummelo-game" / "tls" / "cert.pem"), "/etc/ssl/key.pem")


def test_a_game_that_did_not_travel_stays_where_it_is() -> None:
    game = Game(name="g", app="app:app", folder=Path("/home/me/game"), servers=())
    spec = ServerSpec(id="gate-1", type="gate", web=Path("/home/me/game/web"))
    assert unpacked(game, spec, Path("/ray/unpacked")) == (game, spec)

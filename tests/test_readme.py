"""What the README shows is what runs."""

import re
from pathlib import Path
from typing import Any

from running import ROOT

from actors.config import COMMON, LISTENER, load_game
from actors.loading import load_app

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_game_and_its_unit_test_of_the_readme_run(tmp_path: Path) -> None:
    game, unit_test = blocks("python")
    (tmp_path / "readme_app.py").write_text(game)
    (tmp_path / "servers.yaml").write_text(blocks("yaml")[0].replace("app:app", "readme_app:app"))
    loaded = load_game(tmp_path / "servers.yaml")
    names: dict[str, Any] = {"app": load_app(loaded.folder, loaded.app, loaded.server_types)}
    exec(compile(unit_test, "README.md", "exec"), names)
    names["test_who_speaks_is_heard"]()


def test_a_chat_and_how_to_start_it_stand_within_the_first_fifty_lines() -> None:
    first = "\n".join(README.splitlines()[:50])
    assert "make demo" in first
    assert first.count("```") == 2


def test_every_field_of_servers_yaml_is_in_the_readme() -> None:
    assert all(f"`{field}`" in README for field in (*COMMON, *LISTENER))

"""How a wheel is built, and what the command tells of it."""

import importlib.util
import inspect
from pathlib import Path
from typing import Any

import pytest
from running import ROOT

from actors.build import is_compiled
from actors.cli import main
from gateway.values import Frame, Message
from handlers import Request

specification = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
assert specification is not None
hatch_build = importlib.util.module_from_spec(specification)
assert specification.loader is not None
specification.loader.exec_module(hatch_build)


class Warnings:
    def __init__(self) -> None:
        self.said: list[str] = []

    def display_warning(self, text: str) -> None:
        self.said.append(text)


def hook(monkeypatch: pytest.MonkeyPatch, compile_: Any, asked: str = "") -> tuple[Any, dict[str, Any]]:
    monkeypatch.setattr(hatch_build, "_compile", compile_)
    monkeypatch.setenv("PUMMELO_COMPILE", asked)
    monkeypatch.setenv("CC", "true")  # a command that is there
    made = hatch_build.CompileHook(str(ROOT), {"modules": ["a.py"]}, None, None, "", "wheel")
    made._HookInterface__app = made._BuildHookInterface__app = Warnings()
    return made, {"force_include": {}}


def fails(*_: Any) -> dict[str, str]:
    raise SystemExit("no compiler")


def test_a_wheel_holds_what_was_compiled_and_says_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[Path] = []

    def compiles(modules: list[str], root: Path, folder: Path) -> dict[str, str]:
        assert (modules, root) == (["a.py"], ROOT)
        folders.append(folder)
        return {str(folder / "a.so"): "a.so"}

    made, data = hook(monkeypatch, compiles)
    assert made.dependencies() == hatch_build.DEPENDENCIES
    made.initialize("standard", data)
    assert data == {"force_include": {str(folders[0] / "a.so"): "a.so"}, "pure_python": False, "infer_tag": True}
    made.finalize("standard", data, "")
    assert not folders[0].exists()


def test_a_wheel_is_built_without_what_cannot_be_compiled_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made, data = hook(monkeypatch, fails)
    made.initialize("standard", data)
    assert data == {"force_include": {}}
    assert "no compiler" in capsys.readouterr().err
    assert "built without" in made.app.said[0]
    made.finalize("standard", data, "")


def test_what_has_to_be_compiled_is_or_nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    made, data = hook(monkeypatch, fails, asked="1")
    with pytest.raises(SystemExit):
        made.initialize("standard", data)
    made.finalize("standard", data, "")


@pytest.mark.parametrize(("version", "asked"), [("editable", ""), ("editable", "1"), ("standard", "0")])
def test_an_editable_installation_is_not_compiled_nor_what_nobody_wants(
    monkeypatch: pytest.MonkeyPatch, version: str, asked: str
) -> None:
    made, data = hook(monkeypatch, fails, asked)
    made.initialize(version, data)
    made.finalize(version, data, "")
    assert data == {"force_include": {}}


def test_without_a_compiler_nothing_is_fetched_to_compile_with(monkeypatch: pytest.MonkeyPatch) -> None:
    made, data = hook(monkeypatch, fails)
    monkeypatch.setenv("CC", "there-is-no-such-command")
    assert made.dependencies() == []
    made.initialize("standard", data)
    assert data == {"force_include": {}}


def test_the_modules_to_be_compiled_exist() -> None:
    import tomllib  # noqa: PLC0415

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    modules = project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["modules"]
    assert modules == sorted(set(modules))
    assert all((ROOT / module).is_file() for module in modules)


def test_the_command_tells_its_version_and_whether_it_is_compiled(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    told = "(compiled)" if is_compiled() else "(not compiled)"
    assert capsys.readouterr().out.endswith(f"{told}\n")


def test_what_msgspec_makes_of_its_classes_is_the_same_compiled_or_not() -> None:
    assert Message.__struct_config__.frozen
    assert not Message.__struct_config__.gc
    assert not Frame.__struct_config__.gc
    assert not Request.__struct_config__.eq
    assert inspect.getdoc(Request) != "mypyc filler docstring"

"""Compiles the request path with mypyc when a wheel is built, where there is a C compiler.

The modules are those of ``[tool.hatch.build.targets.wheel.hooks.custom]`` in pyproject.toml. The wheel holds their
sources too, and works alike without the compiled ones: where they cannot be made it is built without, and says why
(pip shows that with ``-v``). ``PUMMELO_COMPILE=0`` does not try, ``PUMMELO_COMPILE=1`` fails where it cannot be done.
An editable installation is never compiled.
"""

import os
import shutil
import tempfile
import traceback
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# mypy knows the code that is compiled by the types of what it imports; of what is not here it assumes nothing.
DEPENDENCIES = ["msgspec>=0.19,<1", "mypy>=1.15,<3", "setuptools>=77", "websockets>=15,<18"]
OPTIONS = ["--config-file=", "--explicit-package-bases", "--ignore-missing-imports"]


class CompileHook(BuildHookInterface[BuilderConfig]):
    """Puts the compiled modules into the wheel, beside their sources."""

    def dependencies(self) -> list[str]:
        """Return what compiling needs of other packages; pip fetches it before anything is built."""
        return DEPENDENCIES if _tried() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile for a version that is no editable one. Raises what compiling raises where it has to be done."""
        if version == "editable" or not _tried():
            return
        self._folder = Path(tempfile.mkdtemp())
        try:
            made = _compile(self.config["modules"], Path(self.root), self._folder)
        except (Exception, SystemExit):
            if _asked() == "1":
                raise
            traceback.print_exc()
            self.app.display_warning("pummelo could not be compiled and is built without: see the error above")
            return
        build_data["force_include"].update(made)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what the wheel holds by now."""
        if hasattr(self, "_folder"):
            shutil.rmtree(self._folder)


def _asked() -> str:
    return os.environ.get("PUMMELO_COMPILE", "")


def _tried() -> bool:
    return _asked() == "1" or (_asked() != "0" and shutil.which(os.environ.get("CC", "cc")) is not None)


def _compile(modules: list[str], root: Path, folder: Path) -> dict[str, str]:
    """Compile modules, given by their paths under ``root``; return where each library is and belongs in the wheel."""
    from mypyc.build import mypycify  # noqa: PLC0415 - only there where something is compiled
    from setuptools import Distribution  # noqa: PLC0415
    from setuptools.command.build_ext import build_ext  # noqa: PLC0415

    here = Path.cwd()
    os.chdir(root)  # mypy finds the packages from where it runs
    try:
        made = mypycify(
            [*OPTIONS, f"--cache-dir={folder / 'mypy'}", *modules],
            opt_level="3",
            debug_level="0",
            target_dir=str(folder / "c"),
            group_name="pummelo",
        )
        command = build_ext(Distribution({"name": "pummelo", "ext_modules": made}))
        command.build_lib, command.build_temp = str(folder / "lib"), str(folder / "temp")
        command.ensure_finalized()
        command.run()
    finally:
        os.chdir(here)
    libraries = [file for file in (folder / "lib").rglob("*") if file.suffix in (".so", ".pyd")]
    return {str(file): str(file.relative_to(folder / "lib")) for file in libraries}

"""Compiles the request path with mypyc when a wheel is built, where there is a C compiler.

The modules are those of ``[tool.hatch.build.targets.wheel.hooks.custom]`` in pyproject.toml. The wheel holds their
sources too, and works alike without the compiled ones: where they cannot be made, it says why and is built without.
``PUMMELO_PURE=1`` asks for that. An editable installation is never compiled.
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
        return [] if _pure() else DEPENDENCIES

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, unless it is not wanted, for a version that is no editable one."""
        if version == "editable" or _pure():
            return
        self._folder = tempfile.mkdtemp()
        try:
            made = _compile(self.config["modules"], Path(self.root), Path(self._folder))
        except (Exception, SystemExit):  # noqa: BLE001 - it is shown, and the wheel works without what failed here
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


def _pure() -> bool:
    return os.environ.get("PUMMELO_PURE", "") not in ("", "0")


def _compile(modules: list[str], root: Path, folder: Path) -> dict[str, str]:
    """Compile modules, given by their paths under ``root``; return where each library is and belongs in the wheel."""
    from mypyc.build import mypycify  # noqa: PLC0415 - only there where something is compiled
    from setuptools import Distribution  # noqa: PLC0415
    from setuptools.command.build_ext import build_ext  # noqa: PLC0415

    here = Path.cwd()
    os.chdir(root)  # mypy finds the packages from where it runs
    try:
        made = mypycify(
            [*OPTIONS, *modules],
            opt_level="3",
            debug_level="0",
            target_dir=str(folder / "c"),
            group_name="pummelo",
        )
        command = build_ext(Distribution({"name": "pummelo", "ext_modules": made}))
        command.build_lib, command.build_temp = str(folder / "lib"), str(folder / "temp")
        command.parallel = os.cpu_count()
        command.ensure_finalized()
        command.run()
    finally:
        os.chdir(here)
    libraries = [file for file in (folder / "lib").rglob("*") if file.suffix in (".so", ".pyd")]
    return {str(file): str(file.relative_to(folder / "lib")) for file in libraries}

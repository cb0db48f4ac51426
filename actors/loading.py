"""Importing a game's app, in the command that starts it and in every server."""

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path

from handlers import App, AppError

__all__ = ["load_app"]


def load_app(folder: Path, name: str, server_types: Iterable[str]) -> App:
    """Return the app ``"module:object"`` of the game in ``folder``, which goes last on ``sys.path``.

    Raises AppError when the module or object is not there, is another's of the same name, is no App, or its
    declarations are wrong. What the module itself raises while it is imported is its own affair and passes through.
    """
    module_name, _, attribute = name.partition(":")
    _make_importable(folder, module_name.partition(".")[0])
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        raise AppError(f"app: there is no module {module_name!r} in {folder}") from None
    origin = getattr(module, "__file__", None)
    if origin is None or not Path(origin).resolve().is_relative_to(folder.resolve()):
        raise AppError(f"app: the module {module_name!r} is that of {origin or 'Python'}; rename the game's")
    app = getattr(module, attribute, None)
    if not isinstance(app, App):
        raise AppError(f"app: {name!r} is {'not there' if app is None else 'no App'}")
    if mistakes := app.mistakes(server_types):
        raise AppError("app: " + "; ".join(mistakes))
    return app


def _make_importable(folder: Path, top: str) -> None:
    """Put the folder on ``sys.path``, and take off what stands before it and has a module of the app's name.

    Ray puts the folder in which the command was started on its workers' path; another game's ``app.py`` may lie there.
    Python's own and installed modules stay: a game cannot take their names.
    """
    installed = tuple(Path(prefix).resolve() for prefix in {sys.prefix, sys.base_prefix})

    def shadows(entry: str) -> bool:
        place = Path(entry or ".").resolve()
        has = (place / f"{top}.py").exists() or (place / top / "__init__.py").exists()
        return has and place != folder.resolve() and not any(place.is_relative_to(prefix) for prefix in installed)

    sys.path[:] = [entry for entry in sys.path if not shadows(entry)]
    if str(folder) not in sys.path:
        sys.path.append(str(folder))

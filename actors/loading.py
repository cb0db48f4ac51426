"""Importing a game's app, in the command that starts it and in every server."""

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path

from handlers import App, AppError

__all__ = ["load_app"]


def load_app(folder: Path, name: str, server_types: Iterable[str]) -> App:
    """Return the app ``"module:object"`` of the game in ``folder``, which goes last on ``sys.path``.

    Raises AppError when the module or object is not there, is no App, or its declarations are wrong. What the module
    itself raises while it is imported is its own affair and passes through.
    """
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        raise AppError(f"app: there is no module {module_name!r} in {folder}") from None
    app = getattr(module, attribute, None)
    if not isinstance(app, App):
        raise AppError(f"app: {name!r} is {'not there' if app is None else 'no App'}")
    if mistakes := app.mistakes(server_types):
        raise AppError("app: " + "; ".join(mistakes))
    return app

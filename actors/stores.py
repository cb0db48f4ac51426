"""What a game's directory makes of its servers: which store each uses, and what a directory server runs."""

import importlib

from actors.game import Game, ServerSpec
from actors.loading import load_app
from handlers import App
from handlers.members import Member
from handlers.store import DIRECTORY, Store

__all__ = ["app_for", "store_for"]


def app_for(spec: ServerSpec, game: Game) -> App:
    """Return the app that a server runs: the game's, and none of its code on a directory server."""
    if spec.type == DIRECTORY:
        return App(DIRECTORY)
    return load_app(game.folder, game.app, game.server_types)


def store_for(member: Member, game: Game) -> Store | None:
    """Return a server's store, None where it is the embedded one, which the server makes itself, or there is none."""
    directory = game.directory
    if directory is None or directory.store != "redis":
        return None
    # The package is there only where a game uses it.
    module = importlib.import_module("actors.redis_store")
    interval = directory.presence_interval
    store: Store = module.RedisStore(directory.url, directory.prefix, member.id, member.incarnation, interval=interval)
    return store

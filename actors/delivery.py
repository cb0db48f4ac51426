"""Sending a game's files to the cluster that runs it."""

import hashlib
from dataclasses import replace

from actors.cluster import ClusterError
from actors.game import Game
from actors.parcel import ParcelError, packed

__all__ = ["delivered"]


def delivered(game: Game) -> Game:
    """Send a game's folder to the cluster joined before; returns the game as its nodes can start it.

    To be called in the command, where the files are, each time that they may have changed: before ``launch``, and
    before a master is handed a game to restart servers with. Ray keeps the files for as long as an actor that was made
    with them is there, restarts included, and for ten minutes until the first is made. Only a game on an embedded Ray
    does without. Raises ClusterError when the folder is too large or cannot be read.
    """
    # Ray offers this in ``ray.init`` alone: what an operator sends later would not reach the actors of a master.
    from ray._private.runtime_env.packaging import (  # noqa: PLC0415
        pin_runtime_env_uri,
        upload_package_to_gcs,
    )

    try:
        parcel = packed(game.folder)
    except ParcelError as error:
        raise ClusterError(str(error)) from error
    uri = f"gcs://pummelo_{game.name}_{hashlib.sha256(parcel).hexdigest()[:32]}.zip"
    try:
        pin_runtime_env_uri(uri)
        upload_package_to_gcs(uri, parcel)
    except RuntimeError as error:
        raise ClusterError(f"the game's files could not be sent to the cluster: {error}") from error
    return replace(game, parcel=uri)

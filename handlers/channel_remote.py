"""What servers say to a frontend of its users' places in channels; pomelo names the members with each push instead."""

import logging
from functools import partial
from typing import TYPE_CHECKING

import msgpack

from handlers.errors import NotFound, Unavailable
from handlers.frontend_sessions import SessionService
from handlers.link import LEFT, MIRROR, MIRRORED, Link
from handlers.mirror import Mirror
from handlers.rpc import DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from handlers.node import Node

__all__ = ["ChannelRemote"]

logger = logging.getLogger(__name__)


class ChannelRemote:
    """The part of a frontend that mirrors channels: who of its users is a member where."""

    def __init__(self, node: "Node", sessions: SessionService) -> None:
        self.mirror = Mirror()
        self._node = node
        self._sessions = sessions

    def join(self, link: Link, request_id: int, channel: str, uid: str, token: int) -> None:
        """Mirror a member; one without a session here is reported gone."""
        present = uid in self._sessions.by_uid
        if present:
            self.mirror.join(link.peer, channel, uid, token)
        else:
            link.send(LEFT, (uid, [(channel, token)]), vital=True)
        if request_id:
            link.answer(request_id, 0, msgpack.packb(present))

    def leave(self, link: Link, request_id: int, channel: str, uid: str) -> None:
        """Take a member out of the mirror."""
        self.mirror.leave(link.peer, channel, uid)

    def destroy(self, link: Link, request_id: int, channel: str) -> None:
        """Forget a channel's mirror."""
        self.mirror.destroy(link.peer, channel)

    def user_gone(self, uid: str) -> None:
        """Take a user without sessions here out of every channel, and tell the channels' servers."""
        for server_id, places in self.mirror.forget_user(uid).items():
            self._node.tell_if_up(server_id, LEFT, (uid, places))

    def came_up(self, server_id: str, incarnation: int) -> None:
        """Tell a server's new life which members its channels have here; forget them where it is the life they are of.

        That one took them out when the link went down. What is told counts as known when the answer comes: until then
        it is told again to whatever life comes.
        """
        if incarnation <= self.mirror.life(server_id):
            self.mirror.forget_server(server_id)
            return
        try:
            link = self._node.links.to(server_id)
            for channel, members in self.mirror.told(server_id):
                link.send(MIRROR, (channel, members), vital=True)
            link.request(MIRRORED, (), DEFAULT_TIMEOUT, partial(self._known, server_id, incarnation))
        except (Unavailable, NotFound) as error:
            logger.warning("%s: %s is not told of its channels: %s", self._node.id, server_id, error)

    def _known(self, server_id: str, incarnation: int, code: int, payload: bytes) -> None:
        if not code:
            self.mirror.known_to(server_id, incarnation)

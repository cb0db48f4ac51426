"""Which server of a type a client's request, or a call by session, goes to."""

import functools
import inspect
from typing import Any

from handlers.app import App
from handlers.errors import Unavailable
from handlers.link import Links
from handlers.members import Members, rendezvous
from handlers.policies import Policies, choose
from handlers.request import Request

__all__ = ["Router"]


class Router:
    """Picks servers, as the app's route functions and policies say, or by the hash of the uid."""

    def __init__(self, app: App, members: Members, links: Links) -> None:
        self._members = members
        self._links = links
        self._route_function = functools.cache(app.route_function)
        self.policies = Policies(app.policies, self)

    def pick_now(self, server_type: str, request: Request) -> str:
        """Return the id of the server of a type that a request goes to; its route function must be plain.

        A bound user keeps its server while that is down; the unbound go to those that are up. Raises Unavailable when
        the type has no server, and what the route function raises.
        """
        ids = self._ids(server_type)
        pick = self._route_function(server_type)
        if pick is not None:
            return self.checked(server_type, pick(request, ids), ids)
        session = request.session
        policy = self.policies[server_type]
        if policy is not None:
            return choose(policy, session.uid, session.id, ids, self._links.up)
        if session.uid is not None:
            return rendezvous(session.uid, ids)
        return rendezvous(str(session.id), tuple(filter(self._links.up, ids)) or ids)

    async def pick_for(self, server_type: str, request: Request) -> str:
        """Return what ``pick_now`` does, for route functions of either kind."""
        pick = self._route_function(server_type)
        if pick is None or not inspect.iscoroutinefunction(pick):
            return self.pick_now(server_type, request)
        ids = self._ids(server_type)
        return self.checked(server_type, await pick(request, ids), ids)

    def _ids(self, server_type: str) -> tuple[str, ...]:
        ids = self._members.ids(server_type)
        if not ids:
            raise Unavailable(f"there is no {server_type} server")
        return ids

    def checked(self, server_type: str, server_id: Any, ids: tuple[str, ...]) -> str:
        """Return what a route function chose. Raises Unavailable when it is none of the type's servers.

        One that is drained may be chosen by a function that remembers it: work that is under way there goes on.
        """
        if server_id not in ids and server_id not in self._members.all_ids(server_type):
            raise Unavailable(f"the route function of {server_type} chose {server_id!r}, which is none of its servers")
        return str(server_id)

    def weight(self, server_id: str) -> int:
        """Return a server's weight (handlers.policies.Cluster)."""
        return self._members.get(server_id).weight

    def in_flight(self, server_id: str) -> int:
        """Return how many requests from here to a server are not answered yet (handlers.policies.Cluster)."""
        return self._links.in_flight(server_id)

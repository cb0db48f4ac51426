"""What a game is written against. No network and no Ray: a whole game runs in a unit test (``handlers.kit``)."""

from handlers import filters, policies, rpc_filters
from handlers.app import App
from handlers.channels import Channel, ChannelService
from handlers.errors import (
    AppError,
    BadRequest,
    ChannelNotFound,
    Conflict,
    HandlerError,
    NotConfigured,
    NotFound,
    PummeloError,
    TimedOut,
    TooMany,
    Unavailable,
)
from handlers.global_channels import GlobalChannel, GlobalChannels, Presence
from handlers.handshake import Accepted, Handshake, Refused
from handlers.members import Member, rendezvous
from handlers.request import Reply, Request
from handlers.rpc import Remote, RpcAllError, RpcCall
from handlers.server import Server
from handlers.session import Session

__all__ = [
    "Accepted",
    "App",
    "AppError",
    "BadRequest",
    "Channel",
    "ChannelNotFound",
    "ChannelService",
    "Conflict",
    "GlobalChannel",
    "GlobalChannels",
    "HandlerError",
    "Handshake",
    "Member",
    "NotConfigured",
    "NotFound",
    "Presence",
    "PummeloError",
    "Refused",
    "Remote",
    "Reply",
    "Request",
    "RpcAllError",
    "RpcCall",
    "Server",
    "Session",
    "TimedOut",
    "TooMany",
    "Unavailable",
    "filters",
    "policies",
    "rendezvous",
    "rpc_filters",
]

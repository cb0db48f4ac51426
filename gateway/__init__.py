"""The edge: sockets, bytes and the client protocol of pomelo. Knows nothing of Ray or of games.

A `Listener` owns a client port and hands what comes in to an `Acceptor`; a `Client` is one connection of it. Below
them, without any I/O: `Connection` (states and heartbeats), handshakes, packages, messages, the route dictionary.
Imports go one way, downwards in this list: listener, the ports and the door, websocket, stream and datagram, client,
hub, connection, handshake, the codecs, errors.
"""

from gateway.acceptor import Acceptor
from gateway.client import Client, Wire
from gateway.connection import TRANSITIONS, Connection, State
from gateway.dictionary import RouteDictionary
from gateway.errors import EncodeError, GatewayError, HandshakeError, MessageError, ProtocolError, TooLargeError
from gateway.group import Group
from gateway.handshake import HandshakeReply, HandshakeRequest, parse_handshake
from gateway.limits import Limits, grow_file_table, raise_open_file_limit
from gateway.listener import Listener
from gateway.message import decode_message, encode_message, encode_notify, encode_push, encode_request, encode_response
from gateway.networks import Networks
from gateway.package import PackageDecoder, PackageType, encode_package
from gateway.tls import server_context
from gateway.values import Frame, Message, MessageType

__all__ = [
    "TRANSITIONS",
    "Acceptor",
    "Client",
    "Connection",
    "EncodeError",
    "Frame",
    "GatewayError",
    "Group",
    "HandshakeError",
    "HandshakeReply",
    "HandshakeRequest",
    "Limits",
    "Listener",
    "Message",
    "MessageError",
    "MessageType",
    "Networks",
    "PackageDecoder",
    "PackageType",
    "ProtocolError",
    "RouteDictionary",
    "State",
    "TooLargeError",
    "Wire",
    "decode_message",
    "encode_message",
    "encode_notify",
    "encode_package",
    "encode_push",
    "encode_request",
    "encode_response",
    "grow_file_table",
    "parse_handshake",
    "raise_open_file_limit",
    "server_context",
]

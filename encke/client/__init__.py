"""The Python client: Subscriber receives a key's messages, Publisher pushes them (docs/python-client.md)."""

from encke.client.errors import (
    ClientError,
    KeyDeletedError,
    PushError,
    PushTimeoutError,
    ServerError,
    SubscribeError,
    TokenRefusedError,
)
from encke.client.keeper import Connected, Reconnecting, Status
from encke.client.options import SubscriberOptions
from encke.client.publisher import Publisher
from encke.client.pushes import Push, PushFailure, PushReply, PushResult
from encke.client.subscriber import Subscriber
from encke.client.words import Gap, Message

__all__ = [
    "ClientError",
    "Connected",
    "Gap",
    "KeyDeletedError",
    "Message",
    "Publisher",
    "Push",
    "PushError",
    "PushFailure",
    "PushReply",
    "PushResult",
    "PushTimeoutError",
    "Reconnecting",
    "ServerError",
    "Status",
    "SubscribeError",
    "Subscriber",
    "SubscriberOptions",
    "TokenRefusedError",
]

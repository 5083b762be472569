"""Client of latchkeyd: asks the daemon on this host whether to admit the holder of an API key.

    from latchkey import Client

    with Client() as latchkey:
        answer = latchkey.verify(key)
        if answer:
            let_in(answer.subject)

Only a true answer is a yes. If there is no answer, the call raises a LatchkeyError.
"""

from ._aio import AsyncClient
from ._client import Client
from ._errors import (
    ConnectionClosed,
    InvalidRequest,
    LatchkeyError,
    ProtocolError,
    Refused,
    TimedOut,
    Unreachable,
)
from ._socket import DEFAULT_SOCKET
from ._wire import Answer, Verdict

__all__ = [
    "DEFAULT_SOCKET",
    "Answer",
    "AsyncClient",
    "Client",
    "ConnectionClosed",
    "InvalidRequest",
    "LatchkeyError",
    "ProtocolError",
    "Refused",
    "TimedOut",
    "Unreachable",
    "Verdict",
]

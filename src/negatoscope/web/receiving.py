"""Large request bodies that worker threads read from the connection itself: what ``servers.http_body`` gives."""

from __future__ import annotations

from typing import Protocol

from starlette.requests import Request

TAKE_BODY = "negatoscope.take_body"  # in scope["extensions"], set by servers.http


class DirectBody(Protocol):
    """What is left of a request body."""

    left: int  # bytes to come

    def read_into(self, buffer: bytearray) -> int:
        """On a worker thread: fill the start of ``buffer``; 0: nothing came for a while, wait for :meth:`ready`.

        Raises ConnectionError: the sender has left.
        """
        ...

    async def ready(self) -> bool:
        """Wait until there is something to read. False: the sender has left."""
        ...

    def close(self) -> None:
        """Nothing more will be read; what is left is thrown away. May be called twice."""
        ...


def take_body(request: Request) -> DirectBody | None:
    """The rest of the body, when it is large and may be read this way. Close it; then the stream has ended."""
    take = (request.scope.get("extensions") or {}).get(TAKE_BODY)
    body: DirectBody | None = take() if take is not None else None
    return body

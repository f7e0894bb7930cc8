# SPDX-License-Identifier: Apache-2.0
"""The connections that clients hold."""

from __future__ import annotations

import asyncio


class Connections:
    """The open connections by the peer's address; each counts once a request of the bank's has come on it."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], asyncio.Transport] = {}
        self._counted: set[tuple[str, int]] = set()

    def opened(self, peer: tuple[str, int], transport: asyncio.Transport) -> None:
        """A connection was accepted."""
        self._open[peer] = transport

    def closed(self, peer: tuple[str, int]) -> None:
        """A connection has gone."""
        self._open.pop(peer, None)
        self._counted.discard(peer)

    def transport(self, peer: tuple[str, int]) -> asyncio.Transport | None:
        """The connection's transport, while it is open."""
        return self._open.get(peer)

    def first_request(self, peer: tuple[str, int]) -> bool:
        """Whether this is the first request on its connection."""
        if peer in self._counted:
            return False
        self._counted.add(peer)
        return True

    def close_all(self) -> None:
        """Close every connection at once."""
        for transport in list(self._open.values()):
            transport.abort()

# SPDX-License-Identifier: Apache-2.0
"""The open connections of clients."""

from __future__ import annotations

import asyncio


class Connections:
    """The open connections by the peer's address. A connection is counted from its first request to the bank."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], asyncio.Transport] = {}
        self._counted: set[tuple[str, int]] = set()

    def opened(self, peer: tuple[str, int], transport: asyncio.Transport) -> None:
        """Add an accepted connection."""
        self._open[peer] = transport

    def closed(self, peer: tuple[str, int]) -> None:
        """Remove a closed connection."""
        self._open.pop(peer, None)
        self._counted.discard(peer)

    def transport(self, peer: tuple[str, int]) -> asyncio.Transport | None:
        """Return the connection's transport; None if it is closed."""
        return self._open.get(peer)

    def first_request(self, peer: tuple[str, int]) -> bool:
        """Return whether this is the first request on its connection."""
        if peer in self._counted:
            return False
        self._counted.add(peer)
        return True

    def close_all(self) -> None:
        """Close every connection at once."""
        for transport in list(self._open.values()):
            transport.abort()

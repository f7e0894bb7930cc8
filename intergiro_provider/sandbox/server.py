# SPDX-License-Identifier: Apache-2.0
"""The server: uvicorn, on loopback addresses only."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import ipaddress
import logging
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from intergiro_provider.sandbox.app import App
from intergiro_provider.sandbox.bank import Bank
from intergiro_provider.sandbox.connections import Connections
from intergiro_provider.sandbox.control import Control
from intergiro_provider.sandbox.settings import Settings

KEEP_ALIVE = 75
"""Seconds after which the server closes an idle connection."""


class NotLoopback(ValueError):
    """The address can be reached from other machines, and the sandbox must not listen there."""


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket on loopback; port 0 selects a free one.

    :raises NotLoopback: the host is not a loopback address.
    :raises OSError: the port is taken.
    """
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host.strip("[]"))
    except ValueError:
        raise NotLoopback(f"host: {host!r} is not a loopback address; use 127.0.0.1, ::1 or localhost") from None
    if not address.is_loopback:
        raise NotLoopback(f"host: {host} can be reached from outside; use 127.0.0.1, ::1 or localhost")
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    # asyncio disables Nagle's algorithm only for sockets that name TCP as their protocol. With the algorithm, each
    # response costs 40 ms, because headers and body are sent separately.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((str(address), port))
        made.listen(1024)
    except OSError:
        made.close()
        raise
    return made


class Server(uvicorn.Server):
    """A sandbox on a socket, run by the thread that calls `run_until_stopped`.

    :param ready: called once it listens.
    """

    def __init__(
        self,
        settings: Settings,
        sock: socket.socket,
        *,
        verbose: bool = False,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        self.app = App(Bank(settings), verbose=verbose)
        self.app.control = Control(self.app, self._outage).build()
        self._sock, self._ready = sock, ready
        self._address: tuple[str, int] = sock.getsockname()[:2]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._back: asyncio.Task[None] | None = None
        super().__init__(
            uvicorn.Config(
                self.app,
                http=_protocol(self.app.connections),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=KEEP_ALIVE,
            )
        )

    @property
    def url(self) -> str:
        """The URL at which it listens."""
        host, port = self._address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run_until_stopped(self) -> None:
        """Serve until `stop` or, in the main thread, until a signal."""
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(self.serve(sockets=[self._sock]))

    def stop(self) -> None:
        """Stop the server, from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            try:
                self._loop.call_soon_threadsafe(self._stop.set)
            except RuntimeError:
                pass  # it has just stopped by itself

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop after a signal."""
        super().handle_exit(sig, frame)
        self.stop()

    async def main_loop(self) -> None:
        """Wait for the stop. It does not poll, so that tests stop at once."""
        self._loop = asyncio.get_running_loop()
        self._ready()
        await self._stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close all connections at once."""
        if self._back is not None:
            self._back.cancel()
        self._close()

    def _close(self) -> None:
        for server in self.servers:
            server.close()
        self.app.connections.close_all()

    def _outage(self, seconds: float) -> None:
        self._back = asyncio.get_running_loop().create_task(self._be_down(seconds))

    async def _be_down(self, seconds: float) -> None:
        await asyncio.sleep(0.05)  # so that the response to the request for the outage is sent
        self._close()
        await asyncio.sleep(seconds)
        await self.startup(sockets=[listen(*self._address)])


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if importlib.util.find_spec("uvloop") is None:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    return factory


def _protocol(connections: Connections) -> type[asyncio.Protocol]:
    """uvicorn's protocol (httptools if installed), which reports its connections and logs nothing."""
    base: Any
    if importlib.util.find_spec("httptools") is not None:
        base = importlib.import_module("uvicorn.protocols.http.httptools_impl").HttpToolsProtocol
    else:
        base = importlib.import_module("uvicorn.protocols.http.h11_impl").H11Protocol
    quiet = logging.getLogger("intergiro_provider.sandbox.uvicorn")
    quiet.propagate = False
    quiet.setLevel(logging.CRITICAL + 1)  # faults drop connections on purpose

    class Protocol(base):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.logger, self.access_log = quiet, False

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            if self.client is not None:
                connections.opened(self.client, transport)

        def connection_lost(self, exc: Exception | None) -> None:
            if self.client is not None:
                connections.closed(self.client)
            super().connection_lost(exc)

    return Protocol

# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy that can delay, hang, drop or refuse: the network between a task, Airflow's API and its database."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Literal, Self

Mode = Literal["up", "refuse", "drop", "hang", "lose_responses"]


class Proxy:
    """Listens on a loopback port and forwards all data to another port.

    :attr:`mode`: `up`; `refuse`: refuses connections; `drop`: accepts and closes; `hang`: accepts, and forwards nothing
    in either direction; `lose_responses`: forwards requests, but no responses. A change of mode closes all connections.
    :attr:`delay`: seconds of delay for data from the client; on a kept connection, for each request.
    """

    def __init__(self, target: int) -> None:
        self.delay = 0.0
        self.mode: Mode = "up"
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._streams: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.port = 0
        self._call(self._listen())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._call(self._end(for_good=True))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def set(self, mode: Mode) -> None:
        """Set the mode and the delay."""
        self._call(self._set(mode))

    @contextlib.contextmanager
    def being(self, mode: Mode) -> Iterator[None]:
        """Set the mode and the delay for the block."""
        self.set(mode)
        try:
            yield
        finally:
            self.set("up")

    def _call(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)  # type: ignore[arg-type]

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, reuse_address=True)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _set(self, mode: Mode) -> None:
        self.mode = mode
        if mode == "refuse":
            await self._end()
        else:
            for stream in list(self._streams):
                stream.close()
            if self._server is None:
                await self._listen()

    async def _end(self, for_good: bool = False) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for stream in list(self._streams):
            stream.close()
        if for_good:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._streams.add(writer)
        behind: asyncio.StreamWriter | None = None
        try:
            if self.mode == "drop":
                return
            if self.mode == "hang":
                while await reader.read(65536):
                    pass
                return
            answers, behind = await asyncio.open_connection("127.0.0.1", self._target)
            self._streams.add(behind)
            there = asyncio.ensure_future(self._pass_on(reader, behind, late=True))
            back = asyncio.ensure_future(self._pass_on(answers, writer, late=False))
            try:
                # Not at the first end: the data that a server sends before it closes must arrive.
                await back
            finally:
                there.cancel()
                back.cancel()
        except OSError:
            pass
        finally:
            for stream in (writer, behind):
                if stream is not None:
                    self._streams.discard(stream)
                    stream.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, late: bool) -> None:
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def send() -> None:
            # From the arrival of each part, so that header and body of one request are not delayed twice.
            while data := (part := await waiting.get())[1]:
                await asyncio.sleep(part[0] - self._loop.time())
                writer.write(data)
                await writer.drain()

        sending = asyncio.ensure_future(send())
        try:
            with contextlib.suppress(OSError):
                while True:
                    data = await reader.read(65536)
                    if data and not late and self.mode == "lose_responses":
                        continue
                    waiting.put_nowait((self._loop.time() + (self.delay if late else 0.0), data))
                    if not data:
                        break
                await sending
                if late:
                    writer.write_eof()
        finally:
            sending.cancel()

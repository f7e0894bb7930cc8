# SPDX-License-Identifier: Apache-2.0
"""Bare sockets, one thread and an equal share of the time for each window: the lower limit for the bank's responses.

Not a puller that anybody would write; it shows that the sandbox is not what the others wait for.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from datetime import datetime
from urllib.parse import urlencode, urlsplit

from clock import Job, last_id, run


def prepare(job: Job) -> Callable[[], None]:
    """Connect."""
    address = urlsplit(job.url)
    start, end = datetime.fromisoformat(job.created_from), datetime.fromisoformat(job.created_to)
    bounds = [start + (end - start) * number / job.windows for number in range(job.windows + 1)]
    texts = [bound.isoformat(timespec="milliseconds").replace("+00:00", "Z") for bound in bounds]
    wires = [socket.create_connection((address.hostname, address.port)) for _ in range(job.windows)]

    def window(number: int) -> None:
        query = {**job.query, "created_from": texts[number], "created_to": texts[number + 1]}
        buffer = bytearray(1 << 20)
        with job.file(f"{number}.jsonl").open("wb") as out:
            while True:
                head = f"GET /v3/transactions?{urlencode(query)} HTTP/1.1\r\nHost: {address.netloc}\r\n"
                wires[number].sendall(f"{head}Authorization: Bearer {job.token}\r\n\r\n".encode())
                body = _answer(wires[number], buffer)
                out.write(body + b"\n")
                if (cursor := last_id(body)) is None:
                    return
                query["starting_after"] = cursor

    def pull() -> None:
        threads = [threading.Thread(target=window, args=(number,)) for number in range(job.windows)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return pull


def _answer(wire: socket.socket, buffer: bytearray) -> bytes:
    view, have, start, end = memoryview(buffer), 0, 0, 1
    while have < end or not start:
        have += wire.recv_into(view[have:])
        if not start and (start := buffer.find(b"\r\n\r\n", 0, have) + 4) > 3:
            length = buffer.index(b"content-length: ", 0, start) + 16
            end = start + int(buffer[length : buffer.index(b"\r", length)])
        elif start == 3:
            start = 0
    return bytes(view[start:end])


if __name__ == "__main__":
    run(prepare)

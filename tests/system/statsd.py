# SPDX-License-Identifier: Apache-2.0
"""A StatsD server that stores the metrics of an Airflow."""

from __future__ import annotations

import re
import socket
import threading
from types import TracebackType


class StatsdServer:
    """Listens on loopback inside a `with` block."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.2)
        self._lines: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        port = self._socket.getsockname()[1]
        self.env = {
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(port),
        }

    def _listen(self) -> None:
        while not self._ended.is_set():
            try:
                self._lines += self._socket.recv(65536).decode().splitlines()
            except TimeoutError:
                continue

    def count(self, name: str) -> int:
        """Return the value of the counter `airflow.<name>`."""
        return sum(int(n) for n in re.findall(rf"^airflow\.{re.escape(name)}:(\d+)\|c", "\n".join(self._lines), re.M))

    def times(self, name: str) -> list[float]:
        """Return the values of the timer `airflow.<name>`, in milliseconds."""
        found = re.findall(rf"^airflow\.{re.escape(name)}:([\d.]+)\|ms", "\n".join(self._lines), re.M)
        return [float(number) for number in found]

    def __enter__(self) -> StatsdServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

# SPDX-License-Identifier: Apache-2.0
"""A server that responds with given bytes, even invalid ones."""

from __future__ import annotations

import socket
import ssl
import threading
import time


class Server:
    """Sends the next of the given responses to each request, in pieces, and stores the headers of the requests.

    It waits `pause` seconds between two pieces.

    :param tls: the context of a TLS server; None: plain HTTP.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.answers: list[list[bytes]] = []
        self.pause = 0.002
        self.left = threading.Event()
        self.done = threading.Semaphore(0)
        self.heads: list[bytes] = []
        self.connections = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                wire, _ = self._listening.accept()
            except OSError:
                return
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            if self._tls is not None:
                try:
                    wire = self._tls.wrap_socket(wire, server_side=True)
                except OSError:  # the client does not trust the certificate
                    continue
            threading.Thread(target=self._talk, args=(wire,), daemon=True).start()

    def _talk(self, wire: socket.socket) -> None:
        with wire:
            while True:
                head = b""
                while b"\r\n\r\n" not in head:
                    try:
                        got = wire.recv(65536)
                    except ConnectionResetError:
                        return
                    if not got:
                        self.left.set()
                        return
                    head += got
                self.heads.append(head)
                pieces = self.answers.pop(0)
                for piece in pieces:
                    wire.sendall(piece)
                    time.sleep(self.pause if len(pieces) > 1 else 0)
                over = not pieces[0] or any(sign in pieces[0] for sign in (b"HTTP/1.0 ", b"bye\r\n", b"cut: "))
                if over:
                    wire.close()
                self.done.release()
                if over:
                    return

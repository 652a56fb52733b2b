"""A door to a server that can be shut: connections are refused, or taken and never answered."""

from __future__ import annotations

import contextlib
import socket
import threading


class Gate:
    """Forwards TCP to ``host:port`` while it is open; ``url`` stays the same all the time."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._pairs: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.hanging = False
        self.port = 0
        self.open()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        self.hanging = False
        if self._listener is None:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self.port))
            listener.listen(64)
            self.port = listener.getsockname()[1]
            self._listener = listener
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def shut(self) -> None:
        """Refuse from now on, and cut off what is under way."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self._cut()

    def hang(self) -> None:
        """Take connections and requests, and say nothing."""
        self.hanging = True
        self._cut()

    def _cut(self) -> None:
        for one in list(self._pairs):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._pairs.add(client)
        try:
            if self.hanging:
                while client.recv(65536):
                    pass
                return
            with socket.create_connection(self._upstream) as server:
                self._pairs.add(server)
                back = threading.Thread(target=_pump, args=(server, client), daemon=True)
                back.start()
                _pump(client, server)
                back.join()
                self._pairs.discard(server)
        except OSError:
            pass
        finally:
            self._pairs.discard(client)
            client.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for one in (source, target):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)

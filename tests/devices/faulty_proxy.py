"""A network that fails: a TCP proxy that spoils connections on purpose."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator

FAULTS = ("refused", "half_request", "no_answer", "half_answer", "delayed")
DELAY_S = 0.3


class FaultyProxy:
    """Forwards to an agent; every connection takes the next fault, `None` for a good one."""

    def __init__(self, target: tuple[str, int], faults: Iterable[str | None]) -> None:
        self._target = target
        self._faults: Iterator[str | None] = iter(faults)
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> FaultyProxy:
        return self

    def __exit__(self, *exception: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                fault = next(self._faults, None)
                threading.Thread(target=self._serve, args=[client, fault], daemon=True).start()

    def _serve(self, client: socket.socket, fault: str | None) -> None:
        with contextlib.suppress(OSError), client:
            if fault == "refused":
                # Closing with a linger of nothing resets the connection.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            if fault == "delayed":
                time.sleep(DELAY_S)
            with socket.create_connection(self._target) as agent:
                if fault == "half_request":
                    agent.sendall(client.recv(1 << 16)[:60])
                    return
                sender = threading.Thread(target=_pump, args=[client, agent], daemon=True)
                sender.start()
                answer = b"".join(iter(lambda: agent.recv(1 << 16), b""))
                passed = {"no_answer": 0, "half_answer": len(answer) // 2}
                if fault == "no_result" and b'"answer": null' not in answer:
                    passed["no_result"] = 0
                client.sendall(answer[: passed.get(str(fault), len(answer))])
                # The other thread still reads, and a socket that is in use does not close.
                client.shutdown(socket.SHUT_RDWR)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)

"""A proxy before a Kafka broker that changes the answers to one kind of question.

Owns passing on and telling which answers these are. What becomes of them is its subclasses'.
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

from servers.lone_broker import Endpoint, frame
from servers.ports import LOOPBACK


class AnswerProxy(Endpoint):
    """Passes connections on to `target_port`.

    Args:
        target_port: The broker's, on loopback.
        question: The kind whose answers are changed, by the protocol's number.
        name: Of the thread that listens.
    """

    def __init__(self, target_port: int, *, question: int, name: str) -> None:
        super().__init__(self._serve, name=name)
        self._target_port = target_port
        self._question = question
        self._clients: set[socket.socket] = set()

    def cut(self) -> None:
        """End every connection; new ones are taken."""
        for client in list(self._clients):
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def changed(self, answer: bytes) -> bytes:
        """Give what goes out in place of an answer; bytes behind the length."""
        raise NotImplementedError

    def check(self, version: int) -> None:
        """Refuse a version of the question whose answers are not known (AssertionError)."""

    def _serve(self, client: socket.socket) -> None:
        with socket.create_connection((LOOPBACK, self._target_port)) as server:
            asked: set[int] = set()
            answers = threading.Thread(target=self._answer, args=(server, client, asked))
            answers.start()
            self._clients.add(client)
            self._ask(client, server, asked)
            self._clients.discard(client)
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            answers.join()

    def _ask(self, client: socket.socket, server: socket.socket, asked: set[int]) -> None:
        """Pass questions on, and note the numbers of those of the kind."""
        with suppress(OSError):
            while request := frame(client):
                key, version, number = struct.unpack_from(">hhi", request)
                if key == self._question:
                    self.check(version)
                    asked.add(number)
                server.sendall(struct.pack(">i", len(request)) + request)

    def _answer(self, server: socket.socket, client: socket.socket, asked: set[int]) -> None:
        with suppress(OSError):
            while answer := frame(server):
                (number,) = struct.unpack_from(">i", answer)
                if number in asked:
                    asked.discard(number)
                    answer = self.changed(answer)
                client.sendall(struct.pack(">i", len(answer)) + answer)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

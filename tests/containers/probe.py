"""Knocks at doors without credentials; runs on the host and inside a container.

`python probe.py '[["10.0.0.2", 1883, "mqtt"], ...]'` prints the answers as JSON, in order:
"unreachable" (nobody answers), "refused" (somebody asks for credentials), or "open: ..."
with what was given away. Needs the standard library, and pymongo for MongoDB.
"""

from __future__ import annotations

import http.client
import json
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

CONNECT_S = 2.0
ANSWER_S = 5.0

OPEN_PATHS = ("/livez", "/readyz", "/login")
CLOSED_PATHS = ("/", "/api/v1/ledger", "/api/v1/collections", "/db/server", "/metrics")


def knock(host: str, port: int, protocol: str) -> str:
    """Give what an address answers to somebody without credentials."""
    try:
        socket.create_connection((host, port), CONNECT_S).close()
    except OSError:
        return "unreachable"
    try:
        given = PROTOCOLS[protocol](host, port)
    except (OSError, http.client.HTTPException):
        given = ""
    return f"open: {given}" if given else "refused"


def knock_all(doors: Sequence[tuple[str, int, str]]) -> list[str]:
    """Knock at many doors at once."""
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda door: knock(*door), doors))


def ask(host: str, port: int, request: bytes) -> bytes:
    """Send bytes and give the beginning of the answer; nothing when the peer hangs up."""
    with socket.create_connection((host, port), CONNECT_S) as connection:
        connection.settimeout(ANSWER_S)
        connection.sendall(request)
        return connection.recv(4096)


def _mqtt(host: str, port: int) -> str:
    connect = b"\x10\x10\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x03eve"
    answer = ask(host, port, connect)
    return "" if len(answer) < 4 or answer[3] >= 0x80 else f"CONNACK {answer[3]}"


def _kafka(host: str, port: int) -> str:
    # Metadata, version 4, of all topics, with no log-in before it.
    body = struct.pack(">hhih", 3, 4, 7, -1) + struct.pack(">ib", -1, 0)
    answer = ask(host, port, struct.pack(">i", len(body)) + body)
    return f"{len(answer)} bytes of metadata" if answer else ""


def _mongo(host: str, port: int) -> str:
    from pymongo import MongoClient
    from pymongo.errors import OperationFailure

    client: MongoClient[dict[str, object]] = MongoClient(
        host, port, directConnection=True, serverSelectionTimeoutMS=int(ANSWER_S * 1000)
    )
    try:
        for command in ("listDatabases", "serverStatus", "getCmdLineOpts", "replSetGetStatus"):
            try:
                client.admin.command(command)
            except OperationFailure as error:
                if error.code != 13:
                    return f"{command}: {error}"
            else:
                return command
    finally:
        client.close()
    return ""


def _zookeeper(host: str, port: int) -> str:
    # Not `srvr`: ZooKeeper answers that to everybody whatever it is told; it says its version
    # and counts of its own traffic.
    for word in (b"stat", b"conf", b"envi", b"dump", b"cons", b"mntr"):
        answer = ask(host, port, word)
        if answer and b"not in the whitelist" not in answer:
            return f"{word!r}: {answer[:40]!r}"
    # A session without SASL, then the children of "/".
    session = struct.pack(">iqiqi16s?", 0, 0, 10_000, 0, 16, bytes(16), False)
    children = struct.pack(">iii1s?", 1, 8, 1, b"/", False)
    with socket.create_connection((host, port), CONNECT_S) as connection:
        connection.settimeout(ANSWER_S)
        connection.sendall(struct.pack(">i", len(session)) + session)
        if not connection.recv(4096):
            return ""
        connection.sendall(struct.pack(">i", len(children)) + children)
        answer = connection.recv(4096)
    # Length, xid, zxid, error code.
    error = struct.unpack_from(">i", answer, 16)[0] if len(answer) >= 20 else -1
    return "the children of /" if error == 0 else ""


def _page(host: str, port: int) -> str:
    for path in CLOSED_PATHS:
        connection = http.client.HTTPConnection(host, port, timeout=ANSWER_S)
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        if answer.status != 401:
            return f"{path}: {answer.status}"
    return ""


PROTOCOLS: dict[str, Callable[[str, int], str]] = {
    "mqtt": _mqtt,
    "kafka": _kafka,
    "mongo": _mongo,
    "zookeeper": _zookeeper,
    "page": _page,
}


if __name__ == "__main__":
    print(json.dumps(knock_all(json.loads(sys.argv[1]))))

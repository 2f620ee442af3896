#!/usr/bin/python3
"""Prepare a mongod container the way the mongo image documents, then become mongod.

Owns the documented surface: arguments that begin with a dash belong to mongod; root hands
the data to the user `mongodb` and becomes it; MONGO_INITDB_ROOT_USERNAME and _PASSWORD (or
the files named by the same with _FILE) switch access control on and, on an empty data
directory, make the first user through a temporary server on loopback, which gets neither
--keyFile nor --replSet. Does not own: configuration files and start-up scripts, which are
refused with a reason. Uses the few modules of Debian's python3-minimal.
"""

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress

USER_ID = 999
DATA_DIRS = ("/data/db", "/data/configdb")
SCRIPTS_DIR = "/docker-entrypoint-initdb.d"
LOOPBACK = ("127.0.0.1", 27017)
START_TIMEOUT_S = 60.0
OP_MSG = 2013


def main(argv: "list[str]") -> None:
    """Become the wanted program; returns never."""
    if not argv or argv[0].startswith("-"):
        argv = ["mongod", *argv]
    if os.path.basename(argv[0]).startswith("mongo") and os.getuid() == 0:
        drop_root(owns_data=argv[0] == "mongod")
    if argv[0] == "mongod":
        argv = prepared(argv)
    os.execvp(argv[0], argv)


def drop_root(*, owns_data: bool) -> None:
    """Become the user mongodb; with owns_data the data directories become its own first."""
    if owns_data:
        for top in DATA_DIRS:
            for folder, _, names in os.walk(top):
                for path in (folder, *(os.path.join(folder, name) for name in names)):
                    if os.lstat(path).st_uid != USER_ID:
                        os.lchown(path, USER_ID, -1)
    for descriptor in (1, 2):
        # A pipe of the host's may refuse: mongod inherits it open.
        with suppress(OSError):
            os.fchown(descriptor, USER_ID, -1)
    os.setgroups([])
    os.setgid(USER_ID)
    os.setuid(USER_ID)
    os.environ["HOME"] = DATA_DIRS[0]


def prepared(argv: "list[str]") -> "list[str]":
    """Give mongod's final arguments, having made the first user where there is none."""
    name = setting("MONGO_INITDB_ROOT_USERNAME")
    password = setting("MONGO_INITDB_ROOT_PASSWORD")
    if bool(name) != bool(password):
        sys.exit("mongo: MONGO_INITDB_ROOT_USERNAME and _PASSWORD: one is set without the other")
    for variable in [key for key in os.environ if key.startswith("MONGO_INITDB_")]:
        del os.environ[variable]
    data_dir = value_of(argv, "--dbpath") or DATA_DIRS[0]
    is_new = not any(
        os.path.exists(os.path.join(data_dir, mark)) for mark in ("WiredTiger", "storage.bson")
    )
    if is_new and any(file.endswith((".js", ".sh")) for file in os.listdir(SCRIPTS_DIR)):
        sys.exit(f"mongo: this stand-in runs no scripts of {SCRIPTS_DIR}")
    if name:
        if "--auth" not in argv:
            argv = [*argv, "--auth"]
        if is_new:
            make_first_user(argv, name=name, password=password)
    if "--bind_ip_all" not in argv and value_of(argv, "--bind_ip") is None:
        argv = [*argv, "--bind_ip_all"]
    return argv


def make_first_user(argv: "list[str]", *, name: str, password: str) -> None:
    """Run mongod open and on loopback for as long as it takes to create its root user."""
    if value_of(argv, "--config") or value_of(argv, "-f"):
        sys.exit("mongo: this stand-in reads no configuration file; pass arguments")
    flags = [arg for arg in argv if arg not in ("--auth", "--bind_ip_all")]
    for option in ("--keyFile", "--replSet", "--bind_ip", "--port"):
        flags = without(flags, option)
    print("mongo: first start: creating the root user", flush=True)
    server = subprocess.Popen([*flags, "--bind_ip", LOOPBACK[0], "--port", str(LOOPBACK[1])])
    try:
        with connected(server) as connection:
            role = document(("role", text("root")), ("db", text("admin")))
            command(
                connection,
                document(
                    ("createUser", text(name)),
                    ("pwd", text(password)),
                    ("roles", (4, document(("0", (3, role))))),
                    ("$db", text("admin")),
                ),
            )
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(START_TIMEOUT_S)
    if code != 0:
        sys.exit(f"mongo: first start: the temporary mongod ended with exit code {code}")
    print("mongo: first start: done", flush=True)


def connected(server: "subprocess.Popen[bytes]") -> socket.socket:
    """Give a connection to the server as soon as it accepts one."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if server.poll() is not None:
            sys.exit(f"mongo: first start: mongod ended with exit code {server.returncode}")
        try:
            return socket.create_connection(LOOPBACK, timeout=START_TIMEOUT_S)
        except ConnectionRefusedError:
            time.sleep(0.1)
    sys.exit(f"mongo: first start: no answer within {START_TIMEOUT_S:.0f} s")


def command(connection: socket.socket, body: bytes) -> None:
    """Send one command and end the program unless the answer has `ok: 1`.

    MongoDB wire protocol, OP_MSG: header (length, request id, response to, op code), flag
    bits, one section of kind 0 with the BSON document.
    """
    payload = struct.pack("<IB", 0, 0) + body
    connection.sendall(struct.pack("<iiii", 16 + len(payload), 1, 0, OP_MSG) + payload)
    length = struct.unpack("<i", received(connection, 4))[0]
    answer = received(connection, length - 4)
    if b"\x01ok\x00" + struct.pack("<d", 1.0) not in answer:
        sys.exit(f"mongo: first start: creating the root user: {answer[17:]!r}")


def received(connection: socket.socket, count: int) -> bytes:
    """Give exactly that many bytes."""
    parts = b""
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            sys.exit("mongo: first start: mongod closed the connection")
        parts += part
    return parts


def document(*fields: "tuple[str, tuple[int, bytes]]") -> bytes:
    """Give a BSON document of (name, (type code, value)) fields."""
    body = b"".join(
        bytes([kind]) + name.encode() + b"\x00" + value for name, (kind, value) in fields
    )
    return struct.pack("<i", len(body) + 5) + body + b"\x00"


def text(value: str) -> "tuple[int, bytes]":
    """Give a BSON string."""
    encoded = value.encode() + b"\x00"
    return 2, struct.pack("<i", len(encoded)) + encoded


def setting(name: str) -> str:
    """Give a variable's value, or the content of the file its _FILE variable names."""
    path = os.environ.get(f"{name}_FILE", "")
    if path and os.environ.get(name):
        sys.exit(f"mongo: {name} and {name}_FILE: both are set")
    if not path:
        return os.environ.get(name, "")
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().rstrip("\n")
    except OSError as error:
        sys.exit(f"mongo: reading {name}_FILE: {error}")


def value_of(argv: "list[str]", option: str) -> "str | None":
    """Give an option's value, written as `--option value` or `--option=value`."""
    for at, arg in enumerate(argv):
        if arg == option:
            return argv[at + 1] if at + 1 < len(argv) else None
        if arg.startswith(f"{option}="):
            return arg.partition("=")[2]
    return None


def without(argv: "list[str]", option: str) -> "list[str]":
    """Give the arguments without an option and its value."""
    kept, skip = [], False
    for arg in argv:
        if skip:
            skip = False
        elif arg == option:
            skip = True
        elif not arg.startswith(f"{option}="):
            kept.append(arg)
    return kept


if __name__ == "__main__":
    main(sys.argv[1:])

"""What an idle kept connection costs in memory, beside nginx."""

import contextlib
import socket
import time

import programs
from load import load, sign
from process import open_files
from programs import Portcullis, Server
from report import CannotMeasure, Section

CONNECTIONS = 10_000
SPARE_FILES = 1000
SETTLE_SECONDS = 2


def measure(plan) -> Section:
    connections = min(CONNECTIONS, open_files(CONNECTIONS + SPARE_FILES) - SPARE_FILES)
    origin, token = programs.origin(), sign("bench-1").text
    nginx = memory(programs.nginx_proxy(origin), connections, token)
    portcullis = memory(Portcullis(plan.gateway, origin), connections, token)
    return Section(
        "Idle kept connections",
        ["program", "bytes more per connection", "resident MB with all"],
        [[name, f"{more / connections:,.0f}", f"{total / 1e6:.0f}"]
         for name, (more, total) in (("nginx, no check", nginx), ("Portcullis", portcullis))],
        notes=[f"{connections:,} connections that made one request each and stay open. nginx takes the greater part "
               "of their memory at its start, for as many as it is configured for (12,000)."],
    )


def memory(server: Server, connections: int, token: str) -> tuple[int, int]:
    """The resident bytes that so many connections add, and those of the whole program then."""
    load(server.url("/secret"), connections=64, seconds=1, token=token).all_good(server.name)
    time.sleep(SETTLE_SECONDS)
    before = server.resident_bytes()
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(kept_connection(server, token)) for _ in range(connections)]
        time.sleep(SETTLE_SECONDS)
        after = server.resident_bytes()
        # Both ends, for memory that belongs to connections closed meanwhile would be no measure.
        for one in (sockets[0], sockets[-1]):
            request(one, server, token)
    server.stop()
    return after - before, after


def kept_connection(server: Server, token: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    request(connection, server, token)
    return connection


def request(connection: socket.socket, server: Server, token: str):
    head = f"GET /secret HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {token}\r\n\r\n"
    connection.sendall(head.encode())
    answer = b""
    while not answer.endswith(b"Hello, World!\n"):
        piece = connection.recv(4096)
        answer += piece
        if not piece or not answer.startswith(b"HTTP/1.1 200 "[:len(answer)]):
            raise CannotMeasure(f"{server.name} answered {answer[:100]!r} on an idle connection")

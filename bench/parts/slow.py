"""Proxied requests while 10,000 clients send their header sections a line at a time."""

import contextlib
import itertools
import select
import socket
import threading
import time

import programs
from load import Load, sign
from process import open_files
from programs import Portcullis
from report import CannotMeasure, Section, Target

CLIENTS = 10_000
SPARE_FILES = 1000
GOOD_CLIENTS = 16
DRIP_SECONDS = 4
DRIP_PARTS = 100
RUSH_AFTER_SECONDS = 0.5


def measure(plan) -> Section:
    clients = min(CLIENTS, open_files(CLIENTS + SPARE_FILES) - SPARE_FILES)
    gateway, token = Portcullis(plan.gateway, programs.origin()), sign("bench-1").text
    calm = good_load(gateway, token, plan.short_seconds).result()
    with contextlib.ExitStack() as held:
        rush = good_load(gateway, token, plan.short_seconds)
        time.sleep(RUSH_AFTER_SECONDS)
        slow = [held.enter_context(slow_connection(gateway)) for _ in range(clients)]
        rushed = rush.result()
        await_admission(gateway, clients)
        stop = threading.Event()
        dripping = threading.Thread(target=drip, args=(slow, stop))
        dripping.start()
        try:
            # Well within the 10 s that a header section may take.
            disturbed = good_load(gateway, token, plan.short_seconds).result()
        finally:
            stop.set()
            dripping.join()
        still_open = sum(is_open(one) for one in slow)
    if still_open < clients:
        raise CannotMeasure(f"of {clients} slow clients {clients - still_open} were closed meanwhile")
    return Section(
        "10,000 slow clients",
        ["proxied requests, 16 clients", "p50 ms", "p99 ms", "requests/s", "failed"],
        [[name, f"{one.p50_ms:.2f}", f"{one.p99_ms:.2f}", f"{one.per_second:,.0f}", str(one.refused + one.broken)]
         for name, one in (("calm", calm), (f"while {clients:,} slow clients arrive", rushed),
                           (f"with {clients:,} slow clients", disturbed))],
        targets=[Target("proxied requests that failed beside slow clients",
                        sum(one.refused + one.broken for one in (rushed, disturbed)), 0)],
        notes=[f"each slow client sends a line of its header section every {DRIP_SECONDS} s."],
    )


def good_load(gateway: Portcullis, token: str, seconds: int) -> Load:
    return Load(gateway.url("/secret"), connections=GOOD_CLIENTS, seconds=seconds, token=token)


def await_admission(gateway: Portcullis, clients: int):
    """Else the good clients would stand behind the slow ones in the queue of new connections."""
    deadline = time.monotonic() + 20
    while gateway.open_connections() < clients:
        if time.monotonic() > deadline:
            raise CannotMeasure(f"the gateway did not take in {clients} slow clients")
        time.sleep(0.02)


def slow_connection(gateway: Portcullis) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
    connection.sendall(b"GET /secret HTTP/1.1\r\nHost: slow\r\n")
    return connection


def drip(connections: list[socket.socket], stop: threading.Event):
    # A part of them at a time: all at once would be a burst of packets, not slow clients.
    parts = itertools.cycle(range(DRIP_PARTS))
    while not stop.wait(DRIP_SECONDS / DRIP_PARTS):
        for connection in connections[next(parts)::DRIP_PARTS]:
            with contextlib.suppress(OSError):  # One that was closed is counted at the end.
                connection.sendall(b"X-Drip: 1\r\n")


def is_open(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return not poll.poll(0)

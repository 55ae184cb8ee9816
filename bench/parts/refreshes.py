"""Refreshes per second, each of its own session and each durable in one SQLite file before it is answered."""

import contextlib
import shutil
import sqlite3
import statistics
import time
from pathlib import Path

import programs
from load import load, sign
from process import fresh_folder
from programs import Portcullis
from report import CannotMeasure, Section, spread

CLIENTS = 64
# A session may refresh 30 times a minute: each of these does it once.
SESSIONS = 250_000
ROUNDS = 3


def measure(plan) -> Section:
    origin = programs.origin()
    empty = Portcullis(plan.gateway, origin, "portcullis-sessions")
    programs.register(empty, 1, "correct horse battery")
    empty.stop()
    tokens = fresh_folder("refreshes") / "tokens"
    tokens.write_text("".join(refresh_token(number) + "\n" for number in range(SESSIONS)))
    fill(empty.database)
    rates = {rotating: [] for rotating in (False, True)}
    for _ in range(ROUNDS):
        for rotating in rates:
            gateway = prepared(plan, origin, empty.database, rotating)
            rates[rotating].append(turn(plan, gateway, tokens))
    rows = [[f"POST /token/refresh{' with rotation' if rotating else ''}, {CLIENTS} clients", spread(rates[rotating])]
            for rotating in rates]
    medians = {rotating: statistics.median(rates[rotating]) for rotating in rates}
    return Section("Refreshes", ["", "per second (range)"], rows,
                   notes=["each of its own session; all that were answered 200 are in the store. "
                          f"Rotation costs {1 - medians[True] / medians[False]:.0%} of the rate."])


def refresh_token(number: int) -> str:
    return sign("bench-1", type="refresh", sid=f"session-{number}", gen=0).text


def fill(path: Path):
    """The sessions of all the tokens, as logins would have opened them."""
    now = int(time.time() * 1000)
    rows = ((f"session-{number}", now, now, now + 3_600_000) for number in range(SESSIONS))
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.executemany("INSERT INTO session (id, account, created, last_used, expires) VALUES (?, 1, ?, ?, ?)",
                             rows)


def prepared(plan, origin, empty: Path, rotating: bool) -> Portcullis:
    name = "portcullis-rotating" if rotating else "portcullis-refreshing"
    database = fresh_folder(f"{name}-database") / "portcullis.db"
    shutil.copy(empty, database)
    return Portcullis(plan.gateway, origin, name, workers=0, cpus=None, database=database, rotating=rotating)


def turn(plan, gateway: Portcullis, tokens: Path) -> float:
    result = load(gateway.url("/token/refresh"), connections=CLIENTS, seconds=plan.seconds + 1, script="tokens.lua",
                  words=["POST", tokens, "once"], cpus=None).all_good("refresh")
    with contextlib.closing(sqlite3.connect(f"file:{gateway.database}?mode=ro", uri=True)) as store:
        kept = store.execute("SELECT count(*) FROM session WHERE last_used > created").fetchone()[0]
    gateway.stop()
    if kept < result.succeeded():
        raise CannotMeasure(f"{result.succeeded()} refreshes were answered 200, but {kept} are in the store")
    return result.succeeded() / result.seconds

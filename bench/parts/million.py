"""A million live revocations: the memory they take, the start, and the look-up, beside ten."""

import contextlib
import functools
import os
import sqlite3
import time
from pathlib import Path

import programs
from load import load, token_file
from parts.http import CONNECTIONS, cost
from process import fresh_folder
from programs import Portcullis
from report import Section, Target, paired_ratio, spread

FEW, MANY = 10, 1_000_000
# So many tokens take turns: the look-ups of a single one would never leave the processor's cache.
TOKENS = 1000
# src/store/revocation.rs: Kind::Token.
TOKEN_KIND = 1


def measure(plan) -> Section:
    origin = programs.origin()
    empty = Portcullis(plan.gateway, origin, "portcullis-empty")
    empty.stop()
    few, many = (prepared(plan, origin, empty.database, count) for count in (FEW, MANY))
    tokens = token_file(fresh_folder("million") / "tokens", TOKENS)
    few_micros, many_micros = [], []
    turn(few, tokens, 1), turn(many, tokens, 1)
    # Before the rounds, so that only the revocations differ.
    memory = many.resident_bytes() - few.resident_bytes()
    for _ in range(plan.rounds):
        few_micros.append(turn(few, tokens, plan.seconds))
        many_micros.append(turn(many, tokens, plan.seconds))
    return Section(
        "A million live revocations",
        ["revocations", "start s", "resident MB", "µs per request (range)"],
        [[f"{count:,}", f"{gateway.start_seconds:.2f}", f"{gateway.resident_bytes() / 1e6:.0f}", spread(micros)]
         for count, gateway, micros in ((FEW, few, few_micros), (MANY, many, many_micros))],
        targets=[
            Target("memory for a million revocations", memory / 1e6, 150, " MB"),
            Target("start with a million revocations", many.start_seconds, 2, " s"),
            Target("a request's cost, × that with ten", paired_ratio(many_micros, few_micros), 1.05),
        ],
        notes=[f"{TOKENS} tokens take turns, so that look-ups miss the processor's cache as they would in use. "
               "The start is from the program's start to 200 at /readyz."],
    )


def prepared(plan, origin, empty: Path, count: int) -> Portcullis:
    database = fresh_folder(f"database-{count}") / "portcullis.db"
    with contextlib.closing(sqlite3.connect(empty)) as source, contextlib.closing(sqlite3.connect(database)) as copy:
        source.backup(copy)
        fill(copy, count)
    return Portcullis(plan.gateway, origin, f"portcullis-{count}", database=database)


def fill(database: sqlite3.Connection, count: int):
    """Revocations of random tokens, for an hour; what the key is a hash of makes no difference."""
    now = int(time.time() * 1000)
    rows = ((os.urandom(16), TOKEN_KIND, now, now + 3_600_000) for _ in range(count))
    with database:
        database.executemany(
            "INSERT INTO revocation (key, kind, generation, at, keep_until) VALUES (?, ?, 0, ?, ?)", rows)


def turn(gateway: Portcullis, tokens: Path, seconds: int) -> float:
    run = functools.partial(load, gateway.url("/secret"), connections=CONNECTIONS, seconds=seconds,
                            script="tokens.lua", words=["GET", tokens, "again"])
    return cost(gateway, run, gateway.name)[0]

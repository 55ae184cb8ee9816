"""What verifying a token costs by algorithm: on first sight, and once its verdict is remembered."""

import functools
import json
import statistics
from pathlib import Path

import programs
from load import load
from parts.http import CONNECTIONS, cost
from process import fresh_folder
from programs import Portcullis, Server
from report import CannotMeasure, Section, number

ALGORITHMS = ["HS256", "ES256", "EdDSA", "RS256"]
# Each is seen once in a round.
TOKENS = 5000
ROUNDS = 3
PASSWORD = "correct horse battery"
REGISTER_SECONDS = 10
# wrk goes on for as long, whenever the tokens are used up.
TURN_SECONDS = 2


def measure(plan) -> Section:
    origin = programs.origin()
    rows = []
    for algorithm in ALGORITHMS:
        # A folder that outlives the processes.
        database = fresh_folder(f"verify-{algorithm}") / "portcullis.db"
        start = functools.partial(Portcullis, plan.gateway, origin, f"portcullis-{algorithm}", database=database,
                                  algorithm=algorithm, cheap_hashes=True)
        gateway = start()
        tokens = tokens_of(gateway)
        first, cached = [], []
        for _ in range(ROUNDS):
            # What was seen is forgotten by a new process.
            gateway.stop()
            gateway = start()
            first.append(turn(gateway, tokens, "once"))
            run = functools.partial(load, gateway.url("/secret"), connections=CONNECTIONS, seconds=plan.short_seconds,
                                    token=last(tokens))
            cached.append(cost(gateway, run, algorithm)[0])
        gateway.stop()
        rows.append([algorithm, *(number(statistics.median(micros)) for micros in (first, cached))])
    return Section(
        "Verifying, by algorithm",
        ["algorithm", "µs per request, each token seen for the first time", "µs per request, remembered"],
        rows,
        notes=[f"{TOKENS:,} tokens that the gateway issued, each sent once to a fresh process; then one of them again and "
               f"again. Medians of {ROUNDS} rounds."],
    )


def tokens_of(gateway: Server) -> Path:
    """Access tokens, each from a registration."""
    folder = fresh_folder("verify")
    load(gateway.url("/registration"), connections=16, seconds=REGISTER_SECONDS, script="register.lua",
         words=[PASSWORD, folder / "answers"], cpus=None)
    # wrk stops in the middle of an answer.
    lines = [line for line in (folder / "answers").read_text().split("\n") if line.endswith("}")]
    if len(lines) < TOKENS:
        raise CannotMeasure(f"{len(lines)} of {TOKENS} users could be registered")
    file = folder / "tokens"
    file.write_text("".join(json.loads(line)["access_token"] + "\n" for line in lines[:TOKENS]))
    return file


def last(tokens: Path) -> str:
    return tokens.read_text().split()[-1]


def turn(gateway: Server, tokens: Path, how: str) -> float:
    run = functools.partial(load, gateway.url("/secret"), connections=CONNECTIONS, seconds=TURN_SECONDS, script="tokens.lua",
                            words=["GET", tokens, how])
    return cost(gateway, run, gateway.name)[0]

"""Logouts per second, each of its own token and each durable in one SQLite file before it is answered."""

import statistics

import programs
from load import load, token_file
from process import fresh_folder
from programs import Portcullis
from report import CannotMeasure, Section, Target, spread

CLIENTS = 64
TOKENS = 200_000
ROUNDS = 3


def measure(plan) -> Section:
    origin = programs.origin()
    rates, done = [], 0
    for number in range(ROUNDS):
        tokens = token_file(fresh_folder("logouts") / "tokens", TOKENS)
        gateway = Portcullis(plan.gateway, origin, f"portcullis-{number}", workers=0, cpus=None)
        result = load(gateway.url("/logout/access"), connections=CLIENTS, seconds=plan.seconds + 1,
                      script="tokens.lua", words=["POST", tokens, "once"], cpus=None).all_good("logout")
        kept = gateway.count_revocations()
        if kept < result.succeeded():
            raise CannotMeasure(f"{result.succeeded()} logouts were answered 200, but {kept} are in the store")
        rates.append(result.succeeded() / result.seconds)
        done += result.succeeded()
        gateway.stop()
    return Section(
        "Logouts",
        ["", "per second (range)"],
        [[f"POST /logout/access, {CLIENTS} clients", spread(rates)]],
        targets=[Target("logouts a second", statistics.median(rates), 5000, at_least=True)],
        notes=[f"each of its own token; all {done:,} that were answered 200 are in the store."],
    )

"""Logins per second, beside the bare argon2 hashes per second of as many threads."""

import os
import statistics
import subprocess

import programs
from load import load
from programs import Portcullis
from report import CannotMeasure, Section, Target, paired_ratio, spread
from setup import BARE_ARGON2

CLIENTS = 32
PASSWORD = "correct horse battery"


def measure(plan) -> Section:
    # The gateway hashes on as many threads as there are cores, and so does the yardstick.
    threads, seconds = os.cpu_count(), plan.seconds + 1
    gateway = Portcullis(plan.gateway, programs.origin(), workers=0, cpus=None)
    programs.register(gateway, CLIENTS, PASSWORD)
    bare, logins, refused = [], [], 0
    for _ in range(plan.rounds):
        bare.append(hashes_per_second(threads, seconds))
        result = load(gateway.url("/login"), connections=CLIENTS, seconds=seconds, script="login.lua",
                      words=[CLIENTS, PASSWORD], cpus=None)
        if result.broken or not result.succeeded():
            raise CannotMeasure(f"login answered {result.statuses}, and {result.broken} requests failed")
        logins.append(result.succeeded() / result.seconds)
        refused += result.refused
    return Section(
        "Logins",
        ["", "per second (range)"],
        [[f"bare argon2id (19 MiB, t = 2, p = 1), {threads} threads", spread(bare)],
         [f"POST /login, {CLIENTS} clients", spread(logins)]],
        targets=[Target("logins, × bare argon2", paired_ratio(logins, bare), 0.9, at_least=True)],
        notes=[f"{refused} of the requests were refused with 503, and do not count. "
               f"The median login rate is {statistics.median(logins):.0f} a second."],
    )


def hashes_per_second(threads: int, seconds: int) -> float:
    done = subprocess.run([BARE_ARGON2, str(threads), str(seconds)], capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise CannotMeasure(f"bare argon2: {done.stderr.strip()}")
    return float(done.stdout)

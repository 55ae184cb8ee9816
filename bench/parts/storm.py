"""Proxied requests while 200 clients log in at once, all on the same cores."""

import programs
from load import Load, load
from programs import Portcullis
from report import CannotMeasure, Section, Target

STORM_CLIENTS = 200
CLIENTS = 16
PASSWORD = "correct horse battery"


def measure(plan) -> Section:
    gateway = Portcullis(plan.gateway, programs.origin(), workers=2, cpus=None)
    token = programs.register(gateway, 1, PASSWORD)
    seconds = 2 * plan.seconds + 2
    calm = proxied(gateway, token, seconds).result().all_good("the calm gateway")

    # It begins before and ends after what is measured, and comes back at once when refused: the worst of clients.
    storm = Load(gateway.url("/login"), connections=STORM_CLIENTS, seconds=seconds + 4, script="login.lua",
                 words=[1, PASSWORD], cpus=None)
    load(gateway.url("/secret"), connections=CLIENTS, seconds=1, token=token, cpus=None)
    stormy = proxied(gateway, token, seconds).result()
    logins = storm.result()
    if not logins.requests or not stormy.requests:
        raise CannotMeasure(f"in the storm {logins.requests} logins and {stormy.requests} requests were answered")
    counts = ", ".join(f"{count:,} × {status}" for status, count in sorted(logins.statuses.items()))
    return Section(
        "A storm of logins",
        ["proxied requests, 16 clients", "p50 ms", "p99 ms", "requests/s", "failed"],
        [[name, f"{one.p50_ms:.2f}", f"{one.p99_ms:.2f}", f"{one.per_second:,.0f}", str(one.refused + one.broken)]
         for name, one in (("calm", calm), (f"with {STORM_CLIENTS} clients logging in", stormy))],
        targets=[
            Target("p99 of proxied requests in the storm", stormy.p99_ms, 50, " ms"),
            Target("proxied requests that failed", stormy.refused + stormy.broken, 0),
        ],
        notes=[f"logins answered: {counts}; {logins.broken} without an answer. "
               "The clients, the origin and the gateway share the cores."],
    )


def proxied(gateway: Portcullis, token: str, seconds: int) -> Load:
    return Load(gateway.url("/secret"), connections=CLIENTS, seconds=seconds, token=token, cpus=None)

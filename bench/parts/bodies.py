"""CPU time for a body of 1 MiB, down and up, beside nginx, HAProxy and Envoy."""

import statistics

import programs
from load import expect, sign
from parts.http import Contender, ratio, take_turns
from programs import FILE_BYTES, Portcullis, Server
from report import CannotMeasure, Section, spread

CONNECTIONS = 16
UPLOAD = {"script": "upload.lua", "words": [FILE_BYTES]}


def measure(plan) -> Section:
    origin, token = programs.origin(), sign("bench-1").text
    servers = [
        ("nginx, no check", programs.nginx_proxy(origin)),
        ("HAProxy, jwt_verify", programs.haproxy(origin, ["none"])),
        ("Envoy, jwt_authn", programs.envoy(origin)),
        ("Portcullis, verified", Portcullis(plan.gateway, origin)),
    ]
    for name, server in servers:
        check_download(name, server, token)
    down = [Contender(name, server, token, "/files/one", connections=CONNECTIONS) for name, server in servers]
    up = [Contender(name, server, token, "/files/none", options=UPLOAD, connections=CONNECTIONS)
          for name, server in servers]
    take_turns(down + up, plan.rounds, plan.short_seconds)
    return Section(
        "A body of 1 MiB: CPU time",
        ["program, one worker", "µs down (range)", "× nginx", "MiB/s down", "µs up (range)", "× nginx", "MiB/s up"],
        [[one.name, spread(one.micros), f"{ratio(one, down[0]):.2f}", f"{statistics.median(one.rates):,.0f}",
          spread(two.micros), f"{ratio(two, up[0]):.2f}", f"{statistics.median(two.rates):,.0f}"]
         for one, two in zip(down, up, strict=True)],
        notes=[f"{plan.rounds} rounds of {plan.short_seconds} s each in turn, wrk with {CONNECTIONS} connections. nginx "
               "does not buffer uploads here. Every answer was 200."],
    )


def check_download(name: str, server: Server, token: str):
    size = len(expect(name, 200, server.port, "GET", "/files/one", token=token))
    if size != FILE_BYTES:
        raise CannotMeasure(f"behind {name} the file has {size} bytes")

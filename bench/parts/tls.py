"""CPU time per request over TLS: on kept connections, and with a handshake each, beside nginx and HAProxy."""

import statistics

import programs
from load import sign
from parts.http import Contender, ratio, take_turns
from programs import Portcullis
from report import Section, spread

HANDSHAKES = {"headers": ["Connection: close"]}


def measure(plan) -> Section:
    origin, token = programs.origin(), sign("bench-1").text
    servers = [
        ("nginx, no check", programs.nginx_proxy(origin, speaks="https")),
        ("HAProxy, jwt_verify", programs.haproxy(origin, ["none"], speaks="https")),
        ("Portcullis, verified", Portcullis(plan.gateway, origin, speaks="https")),
    ]
    kept = [Contender(name, server, token) for name, server in servers]
    fresh = [Contender(name, server, token, options=HANDSHAKES) for name, server in servers]
    take_turns(kept + fresh, plan.rounds, plan.short_seconds)
    return Section(
        "TLS: CPU time per request",
        ["program, one worker", "µs, kept connection (range)", "× nginx", "requests/s",
         "µs, a handshake each (range)", "× nginx", "handshakes/s"],
        [[one.name, spread(one.micros), f"{ratio(one, kept[0]):.2f}", f"{statistics.median(one.rates):,.0f}",
          spread(two.micros), f"{ratio(two, fresh[0]):.2f}", f"{statistics.median(two.rates):,.0f}"]
         for one, two in zip(kept, fresh, strict=True)],
        notes=[f"{plan.rounds} rounds of {plan.short_seconds} s each in turn, wrk over HTTPS, an ECDSA P-256 "
               "certificate, TLS 1.3, no resumption. Every answer was 200."],
    )

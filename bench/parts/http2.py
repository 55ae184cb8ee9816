"""CPU time per request over cleartext HTTP/2, beside nginx and Envoy; HTTP/1.1 to the origin."""

import statistics

import programs
from load import STREAMS, load_h2, sign
from parts.http import CONNECTIONS, Contender, ratio, take_turns
from programs import Portcullis
from report import Section, spread


def measure(plan) -> Section:
    origin, token = programs.origin(), sign("bench-1").text
    portcullis = Portcullis(plan.gateway, origin, speaks="h2")
    contenders = [
        Contender("nginx, no check", programs.nginx_proxy(origin, speaks="h2"), token, loader=load_h2),
        Contender("Envoy, jwt_authn with cache", programs.envoy(origin, speaks="h2"), token, loader=load_h2),
        Contender("Portcullis, verified", portcullis, token, loader=load_h2),
        Contender("Portcullis, public route", portcullis, token, "/public", loader=load_h2),
    ]
    take_turns(contenders, plan.rounds, plan.short_seconds)
    nginx = contenders[0]
    return Section(
        "HTTP/2: CPU time per request",
        ["program, one worker", "µs per request (range)", "× nginx", "requests/s"],
        [[one.name, spread(one.micros), f"{ratio(one, nginx):.2f}", f"{statistics.median(one.rates):,.0f}"]
         for one in contenders],
        notes=[f"{plan.rounds} rounds of {plan.short_seconds} s each in turn, h2load with {CONNECTIONS // STREAMS} "
               f"connections of {STREAMS} streams, cleartext. Every answer was 200."],
    )

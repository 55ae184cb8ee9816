"""CPU time for each message of a WebSocket, there and back, beside nginx, HAProxy and Envoy."""

import statistics

import programs
from load import load_websocket, sign
from parts.http import CONNECTIONS, Contender, ratio, take_turns
from process import OTHER_CPUS, free_port, fresh_folder
from programs import Portcullis, Server
from report import Section, spread
from setup import WEBSOCKET


def measure(plan) -> Section:
    port, token = free_port(), sign("bench-1").text
    fresh_folder("echo")
    origin = Server("echo", [WEBSOCKET, "serve", port], port, cpus=OTHER_CPUS)
    contenders = [
        Contender(name, server, token, "/socket", loader=load_websocket)
        for name, server in [
            ("nginx, no check", programs.nginx_proxy(origin)),
            ("HAProxy, jwt_verify", programs.haproxy(origin, ["none"])),
            ("Envoy, jwt_authn", programs.envoy(origin)),
            ("Portcullis, verified", Portcullis(plan.gateway, origin)),
        ]
    ]
    take_turns(contenders, plan.rounds, plan.short_seconds)
    return Section(
        "WebSocket: CPU time per message and its echo",
        ["program, one worker", "µs per echo (range)", "× nginx", "echoes/s", "echoes per CPU second"],
        [[one.name, spread(one.micros), f"{ratio(one, contenders[0]):.2f}", f"{statistics.median(one.rates):,.0f}",
          f"{1e6 / statistics.median(one.micros):,.0f}"] for one in contenders],
        notes=[f"{plan.rounds} rounds of {plan.short_seconds} s each in turn, {CONNECTIONS} WebSockets with one message "
               "of 32 bytes under way on each (bench/websocket)."],
    )

"""CPU time per request: the gateway beside nginx, HAProxy, Envoy and Flask, in turn, in front of one origin."""

import functools
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

import programs
from load import Result, Token, expect, load, sign
from process import Process
from programs import Portcullis, Server
from report import CannotMeasure, Section, Target, number, paired_ratio, spread

CONNECTIONS = 64
REVOKED = 10_000
PASSWORD = "correct horse battery"


@dataclass
class Contender:
    """One row of the table: a program, what is asked of it, and what each turn gave."""

    name: str
    server: Server
    token: str
    path: str = "/secret"
    loader: Callable = load
    options: dict = field(default_factory=dict)
    connections: int = CONNECTIONS
    micros: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    p99s: list[float] = field(default_factory=list)

    def turn(self, seconds: int):
        run = functools.partial(self.loader, self.server.url(self.path), connections=self.connections,
                                seconds=seconds, token=self.token, **self.options)
        micros, result = cost(self.server, run, self.name)
        self.micros.append(micros)
        self.rates.append(result.per_second)
        self.p99s.append(result.p99_ms)

    def forget(self):
        for values in (self.micros, self.rates, self.p99s):
            values.clear()


def cost(program: Process, run, who: str) -> tuple[float, Result]:
    """Microseconds of the program's CPU time for each request of that load, none of which may fail."""
    before = program.cpu_seconds()
    result = run().all_good(who)
    return (program.cpu_seconds() - before) * 1e6 / result.requests, result


def measure(plan) -> Section:
    contenders = line_up(plan)
    take_turns(contenders, plan.rounds, plan.seconds)
    return section(contenders, plan)


def take_turns(contenders: list[Contender], rounds: int, seconds: int):
    """Each in each round, so that what disturbs the machine for a while disturbs all."""
    for contender in contenders:
        contender.turn(1)  # Warm-up: pools fill, caches learn the token.
        contender.forget()
    for number_of_round in range(rounds):
        print(f"round {number_of_round + 1} of {rounds}", flush=True)
        for contender in contenders:
            contender.turn(seconds)


def line_up(plan) -> list[Contender]:
    origin = programs.origin()
    revoked = [sign("revoked") for _ in range(REVOKED)]
    ids = [token.jti for token in revoked]
    portcullis = Portcullis(plan.gateway, origin)
    logging = Portcullis(plan.gateway, origin, "portcullis-logging", logs=True, database=portcullis.database)
    token = programs.register(portcullis, 1, PASSWORD)
    revoke(portcullis, revoked)

    haproxy, envoy, flask = programs.haproxy(origin, ids), programs.envoy(origin), programs.flask(ids)
    for gate in (portcullis, logging, haproxy, envoy, flask):
        check_gate(gate, token)
    for gate in (portcullis, logging, haproxy, flask):
        expect(gate.name, 401, gate.port, "GET", "/secret", token=revoked[REVOKED // 2].text)
    for gate in (portcullis, logging, haproxy, envoy):
        check_identity(gate, token)
    return [
        Contender("nginx, no check", programs.nginx_proxy(origin), token),
        Contender("HAProxy, jwt_verify, 10,000 revoked", haproxy, token),
        Contender("Envoy, jwt_authn with cache, no revocation", envoy, token),
        Contender("Flask, gunicorn, 10,000 revoked", flask, token),
        Contender("Portcullis, 10,000 revoked", portcullis, token),
        Contender("Portcullis, public route", portcullis, token, "/public"),
        Contender("Portcullis, access log to a pipe", logging, token),
        Contender("nginx, no check, access log to a pipe", programs.nginx_proxy(origin, logs=True), token),
    ]


def revoke(gateway: Portcullis, tokens: list[Token]):
    """Logs them out as a client does."""
    file = gateway.database.with_name("revoked-tokens")
    file.write_text("".join(token.text + "\n" for token in tokens))
    load(gateway.url("/logout/access"), connections=CONNECTIONS, seconds=20, script="tokens.lua",
         words=["POST", file, "once"], cpus=None)
    # wrk stops with answers outstanding, so that the last few may have got lost.
    if gateway.count_revocations() < len(tokens) - 2 * CONNECTIONS:
        raise CannotMeasure(f"{gateway.count_revocations()} of {len(tokens)} logouts are in the store")


def check_gate(gate: Server, token: str):
    expect(gate.name, 200, gate.port, "GET", "/secret", token=token)
    expect(gate.name, 401, gate.port, "GET", "/secret")
    refusal = 422 if gate.name == "flask" else 401
    expect(gate.name, refusal, gate.port, "GET", "/secret", token=token.rpartition(".")[0] + "." + "A" * 43)


def check_identity(gate: Server, token: str):
    seen = expect(gate.name, 200, gate.port, "GET", "/whoami", token=token)
    if seen != b"bench-1":
        raise CannotMeasure(f"behind {gate.name} the origin saw the subject {seen!r}")


def ratio(over: Contender, under: Contender) -> float:
    return paired_ratio(over.micros, under.micros)


def section(contenders: list[Contender], plan) -> Section:
    nginx, haproxy, envoy, _, portcullis, _, logging, nginx_logging = contenders
    rows = [[
        one.name, spread(one.micros), f"{ratio(one, nginx):.2f}", f"{ratio(one, portcullis):.2f}",
        f"{statistics.median(one.rates):,.0f}", f"{statistics.median(one.p99s):.2f}",
    ] for one in contenders]
    return Section(
        "CPU time per request",
        ["program, one worker", "µs per request (range)", "× nginx", "× Portcullis", "requests/s", "p99 ms"],
        rows,
        targets=[
            Target("verified, × nginx that checks nothing", ratio(portcullis, nginx), 1.10),
            Target("verified, × HAProxy", ratio(portcullis, haproxy), 0.6),
            Target("verified, × Envoy", ratio(portcullis, envoy), 0.3),
        ],
        notes=[
            f"{plan.rounds} rounds of {plan.seconds} s each in turn, wrk with {CONNECTIONS} kept connections, one "
            "nginx origin that answers 14 bytes. Each ratio is the median of the rounds' own. Every answer was 200.",
            f"with both logging each request to a pipe: {number(ratio(logging, nginx_logging))} × nginx.",
        ],
    )

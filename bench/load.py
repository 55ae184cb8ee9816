"""The load: wrk, h2load, WebSockets, single requests that check an answer, and tokens signed offline."""

import base64
import hashlib
import hmac
import http.client
import itertools
import json
import math
import re
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from process import OTHER_CPUS, Process, fresh_folder
from report import CannotMeasure
from setup import WEBSOCKET

SCRIPTS = Path(__file__).resolve().parent / "wrk"
SECRET = "0123456789abcdef0123456789abcdef0123456789abcdef"
LIFETIME = 3600
STREAMS = 8
NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Result:
    """What one run of wrk saw."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    refused: int
    broken: int
    statuses: dict[str, int]

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds

    def all_good(self, who: str) -> "Result":
        if self.refused or self.broken or not self.requests:
            raise CannotMeasure(f"{who}: of {self.requests} requests {self.refused} were refused, {self.broken} failed")
        return self

    def succeeded(self) -> int:
        return self.statuses.get("200", 0)


class Load:
    """One wrk that is running; several may at once."""

    def __init__(self, url: str, *, connections: int, seconds: int, token: str | None = None,
                 script: str = "report.lua", words: list | None = None, cpus: set[int] | None = OTHER_CPUS,
                 headers: list[str] | None = None):
        self._seconds = seconds
        name = f"wrk-{next(NUMBERS)}"
        self._log = fresh_folder(name) / "log"
        headers = [*(headers or []), *([f"Authorization: Bearer {token}"] if token else [])]
        options = [word for header in headers for word in ("-H", header)]
        argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *options, "-s", script, url]
        # From the folder of the scripts, where they find each other.
        self._process = Process(name, ["env", "-C", SCRIPTS, *argv, "--", *(words or [])], cpus=cpus)

    def result(self) -> Result:
        await_end(self._process, self._seconds)
        for line in self._log.read_text().splitlines():
            if line.startswith("REPORT "):
                return parsed(json.loads(line.removeprefix("REPORT ")))
        raise CannotMeasure(f"wrk gave no report: {self._process.last_words()}")


def await_end(process: Process, seconds: int):
    """Of a load that is to last so long; one that does not end is stopped."""
    deadline = time.monotonic() + seconds + 30
    while not process.has_ended() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.stop()


def parsed(line: dict) -> Result:
    return Result(
        requests=line["requests"],
        seconds=line["microseconds"] / 1e6,
        p50_ms=line["p50"] / 1000,
        p99_ms=line["p99"] / 1000,
        refused=line["refused"],
        broken=line["broken"],
        statuses=line["statuses"],
    )


def load(url: str, **options) -> Result:
    return Load(url, **options).result()


def load_h2(url: str, *, connections: int, seconds: int, token: str) -> Result:
    """So many requests at a time, STREAMS of them on each connection of cleartext HTTP/2."""
    name = f"h2load-{next(NUMBERS)}"
    log = fresh_folder(name) / "log"
    argv = ["h2load", "-t1", f"-c{connections // STREAMS}", f"-m{STREAMS}", f"-D{seconds}",
            "-H", f"authorization: Bearer {token}", url]
    process = Process(name, argv, cpus=OTHER_CPUS)
    await_end(process, seconds)
    text = log.read_text()
    rate = re.search(r"finished in [\d.]+m?s, ([\d.]+) req/s", text)
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    others = re.search(r"status codes: \d+ 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    if not (rate and counts and others):
        raise CannotMeasure(f"h2load gave no report: {process.last_words()}")
    succeeded, failed, errored, late = map(int, counts.groups())
    return Result(requests=succeeded, seconds=succeeded / max(float(rate[1]), 1), p50_ms=math.nan, p99_ms=math.nan,
                  refused=sum(map(int, others.groups())), broken=failed + errored + late, statuses={})


def load_websocket(url: str, *, connections: int, seconds: int, token: str) -> Result:
    """Messages of 32 bytes that came back, one at a time on each connection."""
    name = f"websocket-{next(NUMBERS)}"
    log = fresh_folder(name) / "log"
    port, path = re.fullmatch(r"http://127\.0\.0\.1:(\d+)(/.*)", url).groups()
    process = Process(name, [WEBSOCKET, "load", port, path, token, connections, seconds], cpus=OTHER_CPUS)
    await_end(process, seconds)
    words = log.read_text().split()
    if len(words) != 2:
        raise CannotMeasure(f"the WebSockets broke: {process.last_words()}")
    return Result(requests=int(words[0]), seconds=float(words[1]), p50_ms=math.nan, p99_ms=math.nan, refused=0,
                  broken=0, statuses={})


def ask(port: int, method: str, path: str, *, token: str | None = None, body: dict | None = None) -> tuple[int, bytes]:
    """One request on a connection of its own: the status and the body."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if body is not None:
        headers["Content-Type"] = "application/json"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def expect(who: str, wanted: int, port: int, method: str, path: str, **options) -> bytes:
    status, body = ask(port, method, path, **options)
    if status != wanted:
        raise CannotMeasure(f"{who} answered {status} to {method} {path}, not {wanted}: {body[:200]!r}")
    return body


@dataclass(frozen=True)
class Token:
    jti: str
    text: str


def sign(subject: str, **others) -> Token:
    """An access token as flask-jwt-extended makes it, which every program here accepts; with other claims besides."""
    now = int(time.time())
    jti = str(uuid.uuid4())
    claims = {"fresh": False, "iat": now, "jti": jti, "type": "access", "sub": subject, "nbf": now,
              "exp": now + LIFETIME, **others}
    signed = part({"alg": "HS256", "typ": "JWT"}) + b"." + part(claims)
    signature = hmac.digest(SECRET.encode(), signed, hashlib.sha256)
    return Token(jti, (signed + b"." + encoded(signature)).decode())


def part(value: dict) -> bytes:
    return encoded(json.dumps(value, separators=(",", ":")).encode())


def encoded(value: bytes) -> bytes:
    return base64.urlsafe_b64encode(value).rstrip(b"=")


def token_file(path: Path, count: int) -> Path:
    """So many tokens, each of its own id, one a line."""
    path.write_text("".join(sign("bench-1").text + "\n" for _ in range(count)))
    return path

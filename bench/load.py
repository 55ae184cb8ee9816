"""The load: wrk, single requests that check an answer, and tokens signed offline."""

import base64
import hashlib
import hmac
import http.client
import itertools
import json
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from process import OTHER_CPUS, Process, fresh_folder
from report import CannotMeasure

SCRIPTS = Path(__file__).resolve().parent / "wrk"
SECRET = "0123456789abcdef0123456789abcdef0123456789abcdef"
LIFETIME = 3600
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
                 script: str = "report.lua", words: list | None = None, cpus: set[int] | None = OTHER_CPUS):
        self._seconds = seconds
        name = f"wrk-{next(NUMBERS)}"
        self._log = fresh_folder(name) / "log"
        header = ["-H", f"Authorization: Bearer {token}"] if token else []
        argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *header, "-s", script, url]
        # From the folder of the scripts, where they find each other.
        self._process = Process(name, ["env", "-C", SCRIPTS, *argv, "--", *(words or [])], cpus=cpus)

    def result(self) -> Result:
        deadline = time.monotonic() + self._seconds + 30
        while not self._process.has_ended():
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        self._process.stop()
        for line in self._log.read_text().splitlines():
            if line.startswith("REPORT "):
                return parsed(json.loads(line.removeprefix("REPORT ")))
        raise CannotMeasure(f"wrk gave no report: {self._process.last_words()}")


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


def sign(subject: str) -> Token:
    """An access token as flask-jwt-extended makes it, which every program here accepts."""
    now = int(time.time())
    jti = str(uuid.uuid4())
    claims = {"fresh": False, "iat": now, "jti": jti, "type": "access", "sub": subject, "nbf": now,
              "exp": now + LIFETIME}
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

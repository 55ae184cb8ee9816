"""The programs that are compared: the configuration of each, one worker each, and how it is started."""

import base64
import contextlib
import json
import re
import socket
import sqlite3
import subprocess
import time
from pathlib import Path

from load import SECRET, ask
from process import MEASURED_CPU, OTHER_CPUS, Process, fresh_folder, free_port
from report import CannotMeasure
from setup import ENVOY, VENV, WORK

HERE = Path(__file__).resolve().parent
FILE_BYTES = 1 << 20


class Server(Process):
    """A program that listens on a port of loopback and has begun to answer there, or is ready by its own word.

    One that speaks `h2` or `https` is ready when it takes connections.
    """

    def __init__(self, name: str, argv: list, port: int, *, admin: int | None = None, speaks: str = "http", **options):
        super().__init__(name, argv, **options)
        self.port = port
        self.speaks = speaks
        self._admin = admin
        self._wait()

    def url(self, path: str) -> str:
        scheme = "https" if self.speaks == "https" else "http"
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def _wait(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not self.has_ended():
            with contextlib.suppress(OSError):
                if self._is_ready():
                    return
            time.sleep(0.005)
        raise CannotMeasure(f"{self.name} does not start: {self.last_words()}")

    def _is_ready(self) -> bool:
        if self._admin is not None:
            return ask(self._admin, "GET", "/readyz")[0] == 200
        if self.speaks != "http":
            socket.create_connection(("127.0.0.1", self.port)).close()
            return True
        ask(self.port, "GET", "/")
        return True


NGINX = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/errors error;
events {{ worker_connections 12000; }}
http {{
  log_format access escape=json '{{"time":"$time_iso8601","client":"$remote_addr","method":"$request_method",'
    '"path":"$uri","status":$status,"seconds":$request_time,"bytes":$body_bytes_sent,"agent":"$http_user_agent"}}';
  access_log {access_log};
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  default_type text/plain;
  keepalive_requests 1000000000;
  {rest}
}}
"""

# /whoami tells what identity arrived, /files/one is 1 MiB, /files/none reads a body before it answers (`return` does
# not); all else is 14 bytes.
ORIGIN = """
  server {{
    listen 127.0.0.1:{port};
    client_max_body_size 0;
    location = /files/one {{ root {root}; sendfile on; }}
    location = /files/none {{
      client_body_buffer_size 2m;
      proxy_pass http://127.0.0.1:{port}/; proxy_pass_request_body off; proxy_set_header Content-Length "";
    }}
    location / {{ return 200 "Hello, World!\\n"; }}
    location = /whoami {{ return 200 "$http_x_auth_subject"; }}
  }}
"""

PROXY = """
  upstream app {{ server 127.0.0.1:{origin}; keepalive 128; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} {listen};
    {certificate}
    location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    location /files {{
      proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
      client_max_body_size 0; proxy_request_buffering off;
    }}
    location /socket {{
      proxy_pass http://app; proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
    }}
  }}
"""


def nginx(name: str, rest: str, *, cpus: set[int] | None, logs: bool = False, speaks: str = "http",
          **values) -> Server:
    folder, port = fresh_folder(name), free_port()
    rest = rest.format(port=port, **values)
    # /dev/stdout is where the official image logs to.
    access_log = "/dev/stdout access" if logs else "off"
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, access_log=access_log, rest=rest))
    argv = ["nginx", "-e", folder / "errors", "-p", folder, "-c", config]
    return Server(name, argv, port, cpus=cpus, piped=logs, speaks=speaks)


def origin() -> Server:
    root = fresh_folder("root")
    # nginx, started by root, reads as another user.
    (root / "files").mkdir()
    (root / "files" / "one").write_bytes(bytes(FILE_BYTES))
    return nginx("origin", ORIGIN, cpus=OTHER_CPUS, root=root)


def nginx_proxy(origin: Server, *, logs: bool = False, speaks: str = "http") -> Server:
    name = "nginx-logging" if logs else "nginx"
    listen = {"http": "", "h2": "http2", "https": "ssl"}[speaks]
    certificate = ""
    if speaks == "https":
        cert, key = certificate_files()
        # Each handshake is to be a whole one.
        certificate = f"ssl_certificate {cert}; ssl_certificate_key {key}; ssl_session_tickets off;"
    return nginx(name, PROXY, cpus=MEASURED_CPU, logs=logs, speaks=speaks, origin=origin.port, listen=listen,
                 certificate=certificate)


def certificate_files() -> tuple[Path, Path]:
    """An ECDSA certificate for 127.0.0.1, signed by itself, and its key."""
    cert, key = WORK / "cert.pem", WORK / "key.pem"
    if not (cert.exists() and key.exists()):
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                   "-days", "3650", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
                   "-keyout", str(key), "-out", str(cert)]
        subprocess.run(command, check=True, capture_output=True)
    return cert, key


HAPROXY = """
global
  nbthread 1
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 5s
  http-reuse always
frontend gate
  bind 127.0.0.1:{port} {bind}
  http-request set-var(txn.bearer) http_auth_bearer
  http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify("HS256","{secret}") -m int 1 }}
  http-request set-var(txn.now) date()
  http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')
  http-request deny deny_status 401 unless {{ var(txn.exp),sub(txn.now) -m int gt 0 }}
  http-request deny deny_status 401 if {{ var(txn.bearer),jwt_payload_query('$.jti') -m str -f {revoked} }}
  http-request set-header X-Auth-Subject %[var(txn.bearer),jwt_payload_query('$.sub')]
  default_backend app
backend app
  server app 127.0.0.1:{origin}
"""


def haproxy(origin: Server, revoked: list[str], *, speaks: str = "http") -> Server:
    folder, port = fresh_folder("haproxy"), free_port()
    (folder / "revoked").write_text("".join(f"{jti}\n" for jti in revoked))
    bind = ""
    if speaks == "https":
        cert, key = certificate_files()
        (folder / "both.pem").write_text(cert.read_text() + key.read_text())
        bind = f"ssl crt {folder / 'both.pem'} no-tls-tickets"
    config = folder / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=port, bind=bind, origin=origin.port, secret=SECRET,
                                     revoked=folder / "revoked"))
    return Server("haproxy", ["haproxy", "-db", "-f", config], port, cpus=MEASURED_CPU, speaks=speaks)


def envoy(origin: Server, *, speaks: str = "http") -> Server:
    """It has no list of revoked tokens: less work than the others'."""
    folder, port = fresh_folder("envoy"), free_port()
    config = folder / "envoy.json"
    config.write_text(json.dumps(envoy_config(port, origin.port), indent=1))
    argv = [ENVOY, "-c", config, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    return Server("envoy", argv, port, cpus=MEASURED_CPU, speaks=speaks)


def envoy_config(port: int, origin_port: int) -> dict:
    return {"static_resources": {
        "listeners": [{"name": "gate", "address": envoy_address(port), "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                **envoy_type("filters.network.http_connection_manager.v3.HttpConnectionManager"),
                "stat_prefix": "gate",
                "upgrade_configs": [{"upgrade_type": "websocket"}],
                "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                    {"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}]},
                "http_filters": [
                    {"name": "envoy.filters.http.jwt_authn", "typed_config": envoy_jwt()},
                    {"name": "envoy.filters.http.router",
                     "typed_config": envoy_type("filters.http.router.v3.Router")},
                ],
            },
        }]}]}],
        "clusters": [{"name": "app", "type": "STATIC", "load_assignment": {"cluster_name": "app", "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": envoy_address(origin_port)}}]}]}}],
    }}


def envoy_jwt() -> dict:
    key = {"kty": "oct", "alg": "HS256", "k": base64.urlsafe_b64encode(SECRET.encode()).rstrip(b"=").decode()}
    return {
        **envoy_type("filters.http.jwt_authn.v3.JwtAuthentication"),
        "providers": {"own": {
            "local_jwks": {"inline_string": json.dumps({"keys": [key]})},
            "forward": True,
            "claim_to_headers": [{"header_name": "x-auth-subject", "claim_name": "sub"}],
            "jwt_cache_config": {"jwt_cache_size": 1000},
        }},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "own"}}],
    }


def envoy_type(name: str) -> dict:
    return {"@type": f"type.googleapis.com/envoy.extensions.{name}"}


def envoy_address(port: int) -> dict:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def flask(revoked: list[str]) -> Server:
    folder, port = fresh_folder("flask"), free_port()
    with sqlite3.connect(folder / "blocklist.db") as database:
        database.execute("CREATE TABLE revoked_tokens (id INTEGER PRIMARY KEY, jti TEXT UNIQUE)")
        database.executemany("INSERT INTO revoked_tokens (jti) VALUES (?)", ((jti,) for jti in revoked))
    # gthread, because the default worker would close each connection after its answer.
    argv = [VENV / "bin" / "gunicorn", "--workers", "1", "--worker-class", "gthread", "--keep-alive", "60",
            "--no-control-socket", "--bind", f"127.0.0.1:{port}", "--chdir", HERE, "flask_app:app"]
    environment = {"JWT_SECRET_KEY": SECRET, "BLOCKLIST": str(folder / "blocklist.db"), "PYTHONDONTWRITEBYTECODE": "1"}
    return Server("flask", argv, port, cpus=MEASURED_CPU, env=environment)


PORTCULLIS = """
server:
  listen: [{{address: "127.0.0.1:{port}", tls: {tls}}}]
  workers: {workers}
  {certificate}
admin:
  listen: 127.0.0.1:{admin}
log: {{format: json, level: info, access: {access}}}
store:
  url: sqlite:{database}
tokens:
  algorithm: {algorithm}
  {secret}
  access_ttl: 1h
# All clients are at one address here.
identity:
  attempts: {{per_account: "off", per_address: "off"}}
  refresh_rotation: {{enabled: {rotating}}}
  password: {{argon2: {argon2}}}
upstreams:
  app:
    servers: [http://127.0.0.1:{origin}]
routes:
  - {{path: /secret, upstream: app}}
  - {{path: /files/*, upstream: app}}
  - {{path: /socket, upstream: app}}
  - {{path: /whoami, upstream: app}}
  - {{path: /public, upstream: app, auth: public}}
"""


class Portcullis(Server):
    """The gateway, ready, over an empty store or over one that was prepared."""

    def __init__(self, binary: Path, origin: Server, name: str = "portcullis", *, workers: int = 1, logs: bool = False,
                 cpus: set[int] | None = MEASURED_CPU, database: Path | None = None, speaks: str = "http",
                 rotating: bool = False, algorithm: str = "HS256", cheap_hashes: bool = False):
        folder, port, admin = fresh_folder(name), free_port(), free_port()
        self.database = database or folder / "portcullis.db"
        config = folder / "gateway.yaml"
        certificate = ""
        if speaks == "https":
            cert, key = certificate_files()
            certificate = f"tls: {{certificates: [{{cert: {cert}, key: {key}}}]}}"
        config.write_text(PORTCULLIS.format(port=port, admin=admin, workers=workers, access=str(logs).lower(),
                                            database=self.database, origin=origin.port, algorithm=algorithm,
                                            secret=f"secret: {SECRET}" if algorithm == "HS256" else "",
                                            argon2="{memory: 8KiB, iterations: 1}" if cheap_hashes else "{}",
                                            rotating=str(rotating).lower(),
                                            tls=str(speaks == "https").lower(), certificate=certificate))
        begin = time.monotonic()
        super().__init__(name, [binary, "run", "--config", config], port, admin=admin, cpus=cpus, piped=logs,
                         speaks=speaks)
        self.start_seconds = time.monotonic() - begin

    def open_connections(self) -> int:
        metrics = ask(self._admin, "GET", "/metrics")[1].decode()
        return int(re.search(r"^portcullis_connections (\d+)$", metrics, re.MULTILINE)[1])

    def count_revocations(self) -> int:
        with sqlite3.connect(f"file:{self.database}?mode=ro", uri=True) as database:
            return database.execute("SELECT count(*) FROM revocation").fetchone()[0]


def register(gateway: Portcullis, users: int, password: str) -> str:
    """The users bench-1 to bench-N; returns the access token of the last one."""
    for number in range(1, users + 1):
        body = {"username": f"bench-{number}", "password": password}
        status, answer = ask(gateway.port, "POST", "/registration", body=body)
        if status != 201:
            raise CannotMeasure(f"registration answered {status}: {answer[:200]!r}")
    return json.loads(answer)["access_token"]

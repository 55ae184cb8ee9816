"""Programs under measurement: started, known by pid, measured from /proc, and stopped."""

import contextlib
import os
import resource
import shutil
import socket
import subprocess
from pathlib import Path

from setup import WORK

CPUS = sorted(os.sched_getaffinity(0))
MEASURED_CPU = set(CPUS[-1:])
OTHER_CPUS = set(CPUS[:-1] or CPUS)
TICKS = os.sysconf("SC_CLK_TCK")
RUN = WORK / "run"

_running: list["Process"] = []


class Process:
    """A child in a folder of its own under target/bench/run/, its output in the file `log` there.

    `cpus` None leaves it all cores. `piped` gives it a pipe as output that `cat` empties, as a container would.
    """

    def __init__(self, name: str, argv: list, *, cpus: set[int] | None, piped: bool = False, env: dict | None = None):
        self.name = name
        folder = folder_of(name)
        self._child = subprocess.Popen(
            [str(part) for part in argv],
            cwd=folder,
            env=os.environ | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else (folder / "log").open("wb"),
            stderr=(folder / "errors").open("wb"),
            preexec_fn=lambda: os.sched_setaffinity(0, cpus or set(CPUS)),
        )
        self.pid = self._child.pid
        _running.append(self)
        if piped:
            self._drain()

    def _drain(self):
        reader = subprocess.Popen(["cat"], stdin=self._child.stdout, stdout=subprocess.DEVNULL)
        self._child.stdout.close()
        self._reader = reader  # Ends by itself when the pipe closes.

    def has_ended(self) -> bool:
        return self._child.poll() is not None

    def last_words(self) -> str:
        """The end of what it printed, for the message of a failed measurement."""
        texts = [(folder_of(self.name) / file).read_text(errors="replace") for file in ("log", "errors")
                 if (folder_of(self.name) / file).exists()]
        return "".join(texts)[-800:].strip()

    def cpu_seconds(self) -> float:
        """User and system time of the program so far: all its threads and all its children."""
        total = 0
        for pid in family(self.pid):
            # After the name, which may hold spaces: field 14 is utime and 15 stime, counted from 1.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def resident_bytes(self) -> int:
        total = 0
        for pid in family(self.pid):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1]) * 1024
        return total

    def stop(self):
        if self in _running:
            _running.remove(self)
        self._child.terminate()
        try:
            self._child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def family(pid: int) -> list[int]:
    """The process and all its descendants."""
    pids = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # The thread ended meanwhile.
            for child in (task / "children").read_text().split():
                pids += family(int(child))
    return pids


def stop_all():
    while _running:
        _running[-1].stop()


def folder_of(name: str) -> Path:
    return RUN / name


def fresh_folder(name: str) -> Path:
    """The named program's folder, emptied of what an earlier start left."""
    folder = folder_of(name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def open_files(wanted: int) -> int:
    """Raises the limit of open files as far as allowed, for this process and those it starts; returns the new one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    granted = max(soft, min(wanted, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
    return granted

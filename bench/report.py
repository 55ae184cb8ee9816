"""What was measured: sections of markdown with targets, and the page that they make."""

import datetime
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass, field

from setup import PYPI, ROOT, WORK


class CannotMeasure(Exception):
    """A number could not be had: a program did not start, answered wrongly, or lost requests."""


@dataclass(frozen=True)
class Target:
    what: str
    value: float
    limit: float
    unit: str = ""
    at_least: bool = False

    def is_met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def line(self) -> str:
        bound = "at least" if self.at_least else "at most"
        mark = "PASS" if self.is_met() else "MISS"
        return f"{mark}  {self.what}: {number(self.value)}{self.unit} ({bound} {number(self.limit)}{self.unit})"


@dataclass
class Section:
    title: str
    head: list[str]
    rows: list[list[str]]
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_failure: bool = False

    def markdown(self) -> str:
        lines = [f"## {self.title}", ""]
        if self.rows:
            lines += [table_line(self.head), table_line(["---"] * len(self.head))]
            lines += [table_line(row) for row in self.rows] + [""]
        lines += [f"- {target.line()}" for target in self.targets] + [f"- {note}" for note in self.notes]
        return "\n".join(lines) + "\n"


def failed(name: str, why: str) -> Section:
    return Section(name, [], [], notes=[f"NOT MEASURED: {why}"], is_failure=True)


def table_line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def number(value: float) -> str:
    """Three digits that matter, and whole numbers as such."""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def paired_ratio(over: list[float], under: list[float]) -> float:
    """The median of the rounds' own ratios: what disturbed a whole round disturbs it little."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def write(sections: list[Section], is_full: bool):
    page = ROOT / "bench" / "RESULTS.md" if is_full else WORK / "results.md"
    page.write_text("\n".join([header(is_full), *(section.markdown() for section in sections)]))
    print(f"\n== targets ({page.relative_to(ROOT)})")
    for section in sections:
        for target in section.targets:
            print(target.line())
        if section.is_failure:
            print(f"FAIL  {section.title}: {section.notes[0]}")


def exit_code(sections: list[Section], strict: bool) -> int:
    broken = any(section.is_failure for section in sections)
    missed = any(not target.is_met() for section in sections for target in section.targets)
    return int(broken or (strict and missed))


def header(is_full: bool) -> str:
    command = "make bench" if is_full else " ".join(["bench/run", *sys.argv[1:]])
    today = datetime.date.today().isoformat()
    return f"""# Results of the benchmark

`{command}` wrote this page on {today}, at commit {commit()}, and so it is reproduced; `bench/run --help`
names the parts. PASS and MISS tell whether a target of the project is met.

Machine: {machine()}.

Compared: {", ".join(versions())}.
"""


def commit() -> str:
    name = said(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"])
    changed = said(["git", "-C", str(ROOT), "status", "--porcelain"])
    return f"{name} with uncommitted changes" if changed else name


def machine() -> str:
    model = "an unnamed processor"
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB, Linux {platform.release()}"


def versions() -> list[str]:
    nginx = said(["nginx", "-v"]).replace("nginx version: ", "")
    haproxy = " ".join(said(["haproxy", "-v"]).split()[:3])
    return [nginx, haproxy, *(package.replace("==", " ") for package in PYPI)]


def said(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip()

"""How soon `inbound check` answers and `inbound serve` greets, and what an idle service takes: PYTHONPATH=tests python tests/bench/start.py

Times are the least and the median of several starts, each a new process on warm files, the least being the figure that other work on the
machine disturbs least. Idle memory is resident; idle CPU is what `--idle` seconds without mail take, in percent of one core.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.servers import RULES, inbound, machine, say


def seconds(work: Callable[[], object], times: int) -> str:
    """The least and the median."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return f"{min(found):.2f} s at best, {statistics.median(found):.2f} s median"


def check(rules: Path) -> None:
    subprocess.run([sys.executable, "-m", "inbound", "check", str(rules)], check=True, stdout=subprocess.DEVNULL)


def greet() -> float:
    """Seconds until the service greets."""
    started = time.perf_counter()
    with inbound():
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=7)
    parser.add_argument("--idle", type=float, default=20.0, help="seconds")
    asked = parser.parse_args()
    say(machine())
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder) / "rules.yaml"
        rules.write_text(RULES)
        check(rules)
        say(f"inbound check: {seconds(lambda: check(rules), asked.times)} (bar 0.5 s)")
    greeted = [greet() for _ in range(asked.times)]
    say(f"inbound serve greets: {min(greeted):.2f} s at best, {statistics.median(greeted):.2f} s median (bar 1.5 s)")
    with inbound() as server:
        time.sleep(3)
        before = server.cpu()
        time.sleep(asked.idle)
        say(f"idle: {server.rss():.0f} MB (bar 110), {(server.cpu() - before) / asked.idle:.2%} of a core")


if __name__ == "__main__":
    main()

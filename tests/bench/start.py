"""How soon `inbound check` answers and `inbound serve` greets, and what an idle service takes: PYTHONPATH=tests python tests/bench/start.py

Times are the least and the median of several starts, each a new process on warm files. CPU, the least of them, is what is left of the time on
a machine with nothing else to do. Idle memory is resident; idle CPU is what `--idle` seconds without mail take, in percent of one core.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.servers import RULES, inbound, machine, say


def check(rules: Path) -> tuple[float, float]:
    """Seconds that it takes, and seconds of CPU."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "inbound", "check", str(rules)], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - started, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def greet() -> tuple[float, float]:
    """Seconds until the service greets, and seconds of CPU until then."""
    started = time.perf_counter()
    with inbound() as server:
        return time.perf_counter() - started, server.cpu()


def told(found: list[tuple[float, float]]) -> str:
    """The figures of several starts."""
    times, cpu = zip(*found, strict=True)
    return f"{min(times):.2f} s at best, {statistics.median(times):.2f} s median, CPU {min(cpu):.2f} s"


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
        say(f"inbound check: {told([check(rules) for _ in range(asked.times)])} (bar 0.5 s)")
    say(f"inbound serve greets: {told([greet() for _ in range(asked.times)])} (bar 1.5 s)")
    with inbound() as server:
        time.sleep(3)
        before = server.cpu()
        time.sleep(asked.idle)
        say(f"idle: {server.rss():.0f} MB (bar 110), {(server.cpu() - before) / asked.idle:.2%} of a core")


if __name__ == "__main__":
    main()

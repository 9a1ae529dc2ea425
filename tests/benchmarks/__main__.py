"""Compare this package with the copy that a Communication library carries, and print the tables.

    pip install . --group benchmark --group test
    python tests/benchmarks

takes about three minutes and prints Markdown. ``--quick`` takes less than one, and shows that
everything runs; its figures are rough. Of each time that the machine can disturb, the least of
several is taken. What it says about progress goes to the standard error stream.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import pyperf
from sides import LIBRARY, OURS, THEIRS, path_of_library, versions

FOLDER = Path(__file__).parent

IMPORTS = {
    "identifiers": {
        OURS: "from azure.communication.common import identifier_from_raw_id",
        THEIRS: f"from {LIBRARY}._shared.models import identifier_from_raw_id",
    },
    "credential": {
        OURS: "from azure.communication.common import CommunicationTokenCredential",
        THEIRS: f"from {LIBRARY}._shared.user_credential import CommunicationTokenCredential",
    },
    "azure-core": {OURS: "import azure.core.credentials, azure.core.exceptions"},
}
IMPORT = """
import sys, time
library = type(sys)(sys.argv[1])
library.__path__ = [sys.argv[2]]
sys.modules[sys.argv[1]] = library
start = time.process_time()
{}
print(time.process_time() - start)
"""


class Table:
    """Rows of a Markdown table, padded so that it can be read as it is."""

    def __init__(self, *head: str) -> None:
        self._rows = [list(head), ["---"] * len(head)]

    def add(self, *cells: str) -> None:
        """Add a row."""
        self._rows.append(list(cells))

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(*self._rows, strict=True)]
        self._rows[1] = ["-" * width for width in widths]
        return "\n".join(f"| {' | '.join(map(str.ljust, row, widths))} |" for row in self._rows)


def time_micro(quick: bool) -> dict[str, float]:
    """Return the seconds that each micro-benchmark takes, by its name."""
    effort = ["--processes=1", "--values=2", "--min-time=0.01"]
    if not quick:
        effort = ["--processes=5", "--values=5", "--min-time=0.05"]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "micro.json")
        command = [sys.executable, str(FOLDER / "micro.py"), *effort, "--warmups=1", "--quiet"]
        subprocess.run([*command, "--output", str(output)], check=True, stdout=sys.stderr)
        suite = pyperf.BenchmarkSuite.load(str(output))
    return {bench.get_name(): min(bench.get_values()) for bench in suite.get_benchmarks()}


def time_imports(quick: bool) -> dict[str, dict[str, float]]:
    """Return the CPU seconds of each import in a new process, by what it is and by side."""
    times: dict[str, dict[str, float]] = {what: {} for what in IMPORTS}
    for _ in range(2 if quick else 10):
        for what, statements in IMPORTS.items():
            for side, statement in statements.items():
                command = [sys.executable, "-c", IMPORT.format(statement), LIBRARY]
                output = subprocess.check_output([*command, path_of_library()])
                times[what][side] = min(times[what].get(side, 1e9), float(output))
    return times


def measure(
    name: str, *arguments: object, times: int = 1, timeout: float = 300
) -> dict[str, float]:
    """Run a measurement of process.py so many times, and return the least of each value."""
    command = [sys.executable, str(FOLDER / "process.py"), name, *map(str, arguments)]
    print(*command[2:], file=sys.stderr)
    runs = [json.loads(subprocess.check_output(command, timeout=timeout)) for _ in range(times)]
    return {key: min(run[key] for run in runs) for key in runs[0]}


def compare(quick: bool) -> Table:
    """Measure both sides and return the table of what it costs."""
    table = Table("what", "the copy", "this package", "better", "required", "met")

    def add(what: str, theirs: str, ours: str, better: str, required: str, met: bool) -> None:
        table.add(what, theirs, ours, better, required, "yes" if met else "**no**")

    micro = time_micro(quick)
    for name, what, most, times in [
        ("get_token", "`get_token` from the cache", 250e-9, 12),
        ("get_token_async", "`await get_token` from the cache", 1e-6, None),
        ("parse", "`identifier_from_raw_id`, five kinds", None, 2),
        ("parse_and_read", "the same, and reading the `properties`", None, 1),
        ("sign", "signing one request with an access key", None, 1.8),
    ]:
        theirs, ours = micro[f"{name}/{THEIRS}"], micro[f"{name}/{OURS}"]
        required = ([seconds(most)] if most else []) + ([f"{times} times"] if times else [])
        met = (not most or ours <= most) and (not times or theirs >= times * ours)
        add(what, seconds(theirs), seconds(ours), ratio(theirs, ours), ", ".join(required), met)

    imports = time_imports(quick)
    theirs, ours = imports["identifiers"][THEIRS], imports["identifiers"][OURS]
    add(
        "import of the identifiers",
        seconds(theirs),
        seconds(ours),
        ratio(theirs, ours),
        "25 ms",
        ours <= 0.025,
    )
    theirs, ours = imports["credential"][THEIRS], imports["credential"][OURS]
    core = imports["azure-core"][OURS]
    add(
        f"import of the credential (azure-core alone: {seconds(core)})",
        seconds(theirs),
        seconds(ours),
        ratio(theirs, ours),
        "azure-core + 15 ms",
        ours <= core + 0.015,
    )

    copy = measure("proactive", THEIRS, 200, times=3)
    own = measure("proactive", OURS, 20_000, times=3)
    what = "one proactive credential"
    add(
        f"{what}: its threads",
        f"{copy['threads']:.0f}",
        f"{own['threads']:.0f}",
        "",
        "0",
        own["threads"] < 0.001,
    )
    add(
        f"{what}: memory beyond the token",
        kilobytes(copy["bytes"]),
        kilobytes(own["bytes"]),
        ratio(copy["bytes"], own["bytes"]),
        "1.6 kB",
        own["bytes"] <= 1_600,
    )
    add(
        f"{what}: construction, with reading the JWT",
        seconds(copy["seconds"]),
        seconds(own["seconds"]),
        ratio(copy["seconds"], own["seconds"]),
        "60 µs",
        own["seconds"] <= 60e-6,
    )

    takes = 0.1 if quick else 1
    what = f"50 threads on an expired token, the refresher takes {takes} s"
    copy, own = (
        measure("stampede", side, 50, takes, "succeeds", times=2) for side in (THEIRS, OURS)
    )
    add(
        f"{what}: CPU",
        seconds(copy["cpu"]),
        seconds(own["cpu"]),
        ratio(copy["cpu"], own["cpu"]),
        "100 ms",
        own["cpu"] <= 0.1,
    )
    copy, own = (measure("stampede", side, 50, takes, "fails") for side in (THEIRS, OURS))
    add(
        f"{what} and fails: calls, time",
        f"{copy['calls']}, {seconds(copy['seconds'])}",
        f"{own['calls']}, {seconds(own['seconds'])}",
        ratio(copy["seconds"], own["seconds"]),
        f"1, {seconds(takes)}",
        own["calls"] == 1 and own["seconds"] <= takes + 0.1,
    )

    def ticks(side: str) -> tuple[str, bool]:
        try:
            count = measure("coroutines", side, 2, 0.5, timeout=5)["ticks"]
        except subprocess.TimeoutExpired:
            return "freezes", False
        return f"goes on ({count} of 20 ticks)", count >= 15

    theirs_does, (ours_does, met) = ticks(THEIRS)[0], ticks(OURS)
    add(
        "the event loop while 2 coroutines await a refresh",
        theirs_does,
        ours_does,
        "",
        "goes on",
        met,
    )

    many = 10_000 if quick else 100_000
    threads = measure("crowd", many)["threads"]
    add(
        f"threads for {many:,} proactive credentials, all due at once",
        f"{many:,}",
        f"{threads}",
        "",
        "9",
        threads <= 9,
    )
    return table


def grow(quick: bool) -> tuple[Table, Table]:
    """Return the tables of what our calls cost as there are more credentials, and waiters."""
    by_credentials = Table("proactive credentials", "construct one", "arm one anew", "refresh one")
    for count in (100, 1_000) if quick else (1_000, 10_000, 100_000):
        cost = measure("growth", count, times=2)
        by_credentials.add(f"{count:,}", *(seconds(cost[key]) for key in cost))
    by_waiters = Table("waiters for one refresh", "calls", "CPU, threads", "CPU, coroutines")
    for count in (1, 10) if quick else (1, 10, 100, 1_000):
        threads = measure("stampede", OURS, count, 0.5, "succeeds", times=2)
        tasks = measure("coroutines", OURS, count, 0.5, times=2)
        calls = f"{threads['calls']} and {tasks['calls']}"
        by_waiters.add(f"{count:,}", calls, seconds(threads["cpu"]), seconds(tasks["cpu"]))
    return by_credentials, by_waiters


def seconds(value: float) -> str:
    """Return a time with three digits and its unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{digits(value / size)} {unit}"
    return f"{digits(value / 1e-9)} ns"


def kilobytes(value: float) -> str:
    """Return an amount of memory with its unit."""
    return f"{value / 1_000:.1f} kB"


def ratio(theirs: float, ours: float) -> str:
    """Return how many times less ours is."""
    return f"{digits(theirs / ours)} times"


def digits(value: float) -> str:
    """Return a number with two digits, or all before the point."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        "python tests/benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="rough figures, in less than a minute")
    quick = parser.parse_args().quick
    number = versions()
    comparison, (by_credentials, by_waiters) = compare(quick), grow(quick)
    print(
        f"This package {number[OURS]} beside the copy in azure-communication-callautomation "
        f"{number[THEIRS]}, with azure-core {version('azure-core')} on "
        f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} "
        f"{platform.machine()}:\n\n{comparison}\n\n"
        f"One call, as there are more credentials:\n\n{by_credentials}\n\n"
        f"One refresh, as more wait for it:\n\n{by_waiters}"
    )


if __name__ == "__main__":
    main()

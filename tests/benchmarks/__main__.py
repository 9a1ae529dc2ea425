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
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pyperf  # type: ignore[import-untyped]
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
        # Many short samples: the least of them is one that no other program interrupted.
        effort = ["--processes=6", "--values=30", "--min-time=0.005"]
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


class Comparison(Table):
    """The table of what both sides cost."""

    def __init__(self) -> None:
        super().__init__("what", "the copy", "this package", "better", "required", "met")
        self.all_met = True

    def compare(
        self,
        what: str,
        theirs: float,
        ours: float,
        show: Callable[[float], str],
        required: str = "",
        met: bool = True,
    ) -> None:
        """Add a row of two amounts of which less is better."""
        better = f"{digits(theirs / ours)} times" if ours else ""
        self.judge(what, show(theirs), show(ours), better, required, met)

    def judge(
        self, what: str, theirs: str, ours: str, better: str, required: str, met: bool
    ) -> None:
        """Add a row of two texts."""
        self.all_met &= met
        verdict = ("yes" if met else "**no**") if required else ""
        self.add(what, theirs, ours, better, required, verdict)


def compare_calls(table: Comparison, quick: bool) -> None:
    """Add what takes nano- or microseconds."""
    micro = time_micro(quick)
    bare = micro["bare"]
    for name, what, times in [
        ("get_token", "`get_token` from the cache", 12),
        ("get_token_async", "`await get_token` from the cache", None),
        ("parse", "`identifier_from_raw_id`, five kinds", 2),
        ("parse_and_read", "the same, and reading the `properties`", None),
        ("sign", "signing one request with an access key", 1.7),
        ("construct", "a credential with a token and a refresher, constructed", 0.5),
    ]:
        theirs, ours = micro[f"{name}/{THEIRS}"], micro[f"{name}/{OURS}"]
        required = f"{times} times" if times else ""
        table.compare(what, theirs, ours, seconds, required, not times or theirs >= times * ours)
    ours = micro[f"get_token/{OURS}"]
    what = f"`get_token`, beside a bare method that reads one clock ({seconds(bare)})"
    table.judge(what, "", f"{digits(ours / bare)} times", "", "2 times", ours <= 2 * bare)


def compare_imports(table: Comparison, quick: bool) -> None:
    """Add what an application's start costs."""
    imports = time_imports(quick)
    theirs, ours = imports["identifiers"][THEIRS], imports["identifiers"][OURS]
    table.compare("import of the identifiers", theirs, ours, seconds, "5 times", theirs >= 5 * ours)
    theirs, ours = imports["credential"][THEIRS], imports["credential"][OURS]
    core = imports["azure-core"][OURS]
    what = f"import of the credential (azure-core alone: {seconds(core)})"
    met = ours <= max(theirs, core * 1.3)
    table.compare(what, theirs, ours, seconds, "as the copy, or azure-core + 30 %", met)


def compare_credentials(table: Comparison) -> None:
    """Add what one proactive credential costs."""
    theirs = measure("proactive", THEIRS, 200, times=3)
    ours = measure("proactive", OURS, 20_000, times=3)
    what, own = "one proactive credential", ours["threads"]
    table.compare(
        f"{what}: threads of its own", theirs["threads"], round(own), digits, "0", own < 1e-3
    )
    took, size = ours["cpu"], ours["bytes"]
    what_it_takes = f"{what}: CPU to construct it, with its JWT"
    table.compare(what_it_takes, theirs["cpu"], took, seconds, "2 times", theirs["cpu"] >= 2 * took)
    memory = f"{what}: memory beyond its token"
    table.compare(memory, theirs["bytes"], size, kilobytes, "1.6 kB", size <= 1_600)


def compare_crowds(table: Comparison, quick: bool) -> None:
    """Add what many cost who want the same at once."""
    takes = 0.1 if quick else 1
    what = f"50 threads on an expired token, the refresher takes {takes} s"
    theirs = measure("stampede", THEIRS, 50, takes, "succeeds", times=2)["cpu"]
    ours = measure("stampede", OURS, 50, takes, "succeeds", times=2)["cpu"]
    table.compare(f"{what}: CPU", theirs, ours, seconds, "10 times", theirs >= 10 * ours)

    failing = [measure("stampede", side, 50, takes, "fails") for side in (THEIRS, OURS)]
    (theirs, calls), (ours, own_calls) = [(run["seconds"], run["calls"]) for run in failing]
    what = f"the same, and the refresher fails ({calls} calls, {own_calls} call)"
    met = own_calls == 1 and ours <= takes * 1.5
    table.compare(what, theirs, ours, seconds, f"1 call, {seconds(takes)}", met)

    what = "the event loop while 2 coroutines await a refresh"
    ticks = [count_ticks(side) for side in (THEIRS, OURS)]
    met = ticks[1] >= 10
    copy, own = ("goes on" if count >= 10 else "freezes" for count in ticks)
    table.judge(what, copy, own, "", "goes on", met)

    many = 10_000 if quick else 100_000
    threads = measure("crowd", many)["threads"]
    what = f"threads for {many:,} proactive credentials that are due at once"
    table.judge(what, "one each", digits(threads), "", "9", threads <= 9)


def count_ticks(side: str) -> float:
    """Return how many of twenty ticks an event loop makes while two coroutines await a refresh."""
    try:
        return measure("coroutines", side, 2, 0.5, timeout=5)["ticks"]
    except subprocess.TimeoutExpired:
        return 0


def grow(quick: bool) -> tuple[Table, Table]:
    """Return the tables of what our calls cost as there are more credentials, and waiters."""
    by_credentials = Table("proactive credentials", "construct one", "refresh one")
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


def digits(value: float) -> str:
    """Return a number with two digits, or all before the point."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def main() -> int:
    """Print the tables; return 1 if what is required is not met, unless the figures are rough."""
    parser = argparse.ArgumentParser(
        "python tests/benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="rough figures, in less than a minute")
    quick = parser.parse_args().quick
    number = versions()
    comparison = Comparison()
    compare_calls(comparison, quick)
    compare_imports(comparison, quick)
    compare_credentials(comparison)
    compare_crowds(comparison, quick)
    by_credentials, by_waiters = grow(quick)
    print(
        f"This package {number[OURS]} beside the copy in azure-communication-callautomation "
        f"{number[THEIRS]}, with azure-core {version('azure-core')} on "
        f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} "
        f"{platform.machine()}:\n\n{comparison}\n\n"
        f"CPU of one call, as there are more credentials:\n\n{by_credentials}\n\n"
        f"One refresh, as more wait for it:\n\n{by_waiters}"
    )
    return 0 if comparison.all_met or quick else 1


if __name__ == "__main__":
    sys.exit(main())

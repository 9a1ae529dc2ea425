"""What a fleet gains from ``samples/shared_token_cache``: tokens for each second, and issues.

``python tests/benchmarks/shared_cache.py [--quick]`` starts a Redis server of its own and, for each
number of processes, has all of them ask for the tokens of the same users at once, first with
nothing cached (a cold start), then with new credentials (as after a deployment). The issuer answers
after 50 ms, about what the identity service takes; the processes share one that only sleeps.
"""

import argparse
import multiprocessing
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

TESTS = Path(__file__).parents[1]
# In place of this file's folder: there, shared_cache is this file.
ROOT = TESTS.parent
sys.path[:1] = [str(path) for path in (ROOT, ROOT / "samples", TESTS, TESTS / "samples")]

from azure.communication.common import CommunicationTokenCredential  # noqa: E402
from cryptography.fernet import Fernet  # noqa: E402

from scaffolding import make_token  # noqa: E402
from shared_cache.fleet import RedisServer, why_not  # noqa: E402
from shared_token_cache import SharedTokenCache  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

ISSUE_SECONDS = 0.05


def run(number: int, users: list[str], url: str, keys: str, issues: Any, line: Any) -> None:
    """Be one process: twice, when told to, ask for a token of each user."""

    def issue() -> str:
        with issues.get_lock():
            issues.value += 1
        time.sleep(ISSUE_SECONDS)
        return make_token(time.time() + 3600, process=number)

    # Processes on one machine of two cores, all at once: they may well take longer to answer.
    cache = SharedTokenCache(url, keys, timeout=10) if url else None
    for _ in range(2):
        refreshers: list[Callable[[], Any]] = [
            cache.refresher(user, issue) if cache else issue
            for user in random.Random(number).sample(users, len(users))
        ]
        credentials = [CommunicationTokenCredential(token_refresher=each) for each in refreshers]
        line.send("ready")
        line.recv()
        for credential in credentials:
            credential.get_token()
        line.send("done")
    if cache:
        cache.close()


def measure(size: int, users: list[str], url: str) -> list[tuple[float, int]]:
    """Return for each of the two rounds how many seconds it took, and how many issues."""
    context = multiprocessing.get_context("spawn")
    keys, issues = Fernet.generate_key().decode(), context.Value("i", 0)
    lines, processes = [], []
    for number in range(size):
        ours, theirs = context.Pipe()
        lines.append(ours)
        arguments = (number, users, url, keys, issues, theirs)
        processes.append(context.Process(target=run, args=arguments, daemon=True))
        processes[-1].start()
        theirs.close()
    results = []
    for _ in range(2):
        for line in lines:
            line.recv()
        before, began = issues.value, time.perf_counter()
        for line in lines:
            line.send("go")
        for line in lines:
            line.recv()
        results.append((time.perf_counter() - began, issues.value - before))
    for process in processes:
        process.join()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few processes and users")
    quick = parser.parse_args().quick
    reason = why_not()
    if reason:
        sys.exit(f"{reason}: on Debian, apt-get install redis-server")
    sizes, count = ((1, 2), 10) if quick else ((1, 2, 4, 8), 200)
    users = [f"8:acs:resource_user-{number}" for number in range(count)]
    print(f"{count} users, {ISSUE_SECONDS * 1000:.0f} ms for each issue, Redis on a Unix socket\n")
    print("| processes | shared cache | cold: issues | tokens/s | again: issues | tokens/s |")
    print("| --: | :-- | --: | --: | --: | --: |")
    for size in sizes:
        for shared in (False, True):
            with tempfile.TemporaryDirectory(prefix="redis-") as folder:
                server = RedisServer(Path(folder))
                if shared:
                    server.start()
                try:
                    results = measure(size, users, server.url if shared else "")
                finally:
                    server.stop()
            row = [f"{size}", "yes" if shared else "no"]
            for seconds, issues in results:
                row += [f"{issues:,}", f"{size * count / seconds:,.0f}"]
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()

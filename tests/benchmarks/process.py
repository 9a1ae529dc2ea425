"""What takes a process of its own: threads, memory, CPU, and loops that freeze. Run by
``__main__`` as ``process.py NAME ARGUMENT...``; prints one JSON object.
"""

import asyncio
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil  # type: ignore[import-untyped]  # pyperf needs it too
from azure.core.credentials import AccessToken
from sides import OURS, load, make_token, unused

DAY = 86_400


def proactive(side: str, count: str) -> dict[str, float]:
    """Measure so many proactive credentials: CPU, bytes and threads for each of them."""
    cls = load(side, "", "user_credential").CommunicationTokenCredential
    token = make_token(DAY)
    with cls(token, token_refresher=unused):  # loads what is loaded at first use
        pass
    memory = psutil.Process().memory_info
    before, threads, start = memory().rss, threading.active_count(), time.process_time()
    credentials = []
    for _ in range(int(count)):
        credential = cls(token, token_refresher=unused, proactive_refresh=True)
        credentials.append(credential.__enter__())  # where the copy starts its timer
    return {
        "cpu": (time.process_time() - start) / len(credentials),
        "bytes": (memory().rss - before) / len(credentials),
        "threads": (threading.active_count() - threads) / len(credentials),
    }


def crowd(count: str) -> dict[str, float]:
    """Have as many proactive credentials fetch their first token at once; count our threads."""
    cls = load(OURS, "", "").CommunicationTokenCredential
    calls, peak, over = itertools.count(1), 0, threading.Event()

    def refresh() -> AccessToken:
        nonlocal peak
        peak = max(peak, threading.active_count())
        number = next(calls)
        if number < 100:
            time.sleep(0.01)  # as an issuer takes; so that one worker is not enough
        if number == int(count):
            over.set()
        return AccessToken("a token", int(time.time() + DAY))

    before = threading.active_count()
    credentials = [cls(token_refresher=refresh, proactive_refresh=True) for _ in range(int(count))]
    over.wait()
    return {"credentials": len(credentials), "threads": peak - before}


def stampede(side: str, threads: str, seconds: str, outcome: str) -> dict[str, float]:
    """Have threads meet an expired token, with a refresher that takes so long and then fails."""
    cls = load(side, "", "user_credential").CommunicationTokenCredential
    calls = itertools.count()

    def refresh() -> AccessToken:
        next(calls)
        time.sleep(float(seconds))
        if outcome == "fails":
            msg = "the issuer is down"
            raise ConnectionError(msg)
        return AccessToken(make_token(DAY), int(time.time() + DAY))

    credential = cls(make_token(-60), token_refresher=refresh)

    def ask() -> None:
        try:
            credential.get_token()
        except ConnectionError:
            assert outcome == "fails"

    all_threads = [threading.Thread(target=ask) for _ in range(int(threads))]
    start, cpu = time.perf_counter(), time.process_time()
    for thread in all_threads:
        thread.start()
    for thread in all_threads:
        thread.join()
    return {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "calls": next(calls),
    }


def coroutines(side: str, count: str, seconds: str) -> dict[str, float]:
    """Have coroutines meet an expired token; count how often the loop turns meanwhile."""
    cls = load(side, ".aio", "user_credential_async").CommunicationTokenCredential
    calls = itertools.count()

    async def refresh() -> AccessToken:
        next(calls)
        await asyncio.sleep(float(seconds))
        return AccessToken(make_token(DAY), int(time.time() + DAY))

    async def main() -> dict[str, float]:
        credential = cls(make_token(-60), token_refresher=refresh)
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(float(seconds) / 20)
                ticks += 1

        ticking = asyncio.create_task(tick())
        cpu = time.process_time()
        await asyncio.gather(*(credential.get_token() for _ in range(int(count))))
        cpu = time.process_time() - cpu
        ticking.cancel()
        return {"ticks": ticks, "cpu": cpu, "calls": next(calls)}

    return asyncio.run(main())


def growth(count: str) -> dict[str, float]:
    """Measure the CPU that one call takes when there are so many credentials."""
    common = load(OURS, "", "")
    serials = itertools.count()

    def issue() -> AccessToken:
        return AccessToken(f"token {next(serials)}", int(time.time() + DAY))

    def construct(_: object) -> Any:
        return common.CommunicationTokenCredential(
            issue(), token_refresher=issue, proactive_refresh=True
        )

    def refresh(credential: Any) -> None:
        credential.invalidate_token(credential.get_token().token)
        credential.get_token()

    def timed(function: Callable[[Any], Any], values: Any) -> tuple[float, list[Any]]:
        start = time.process_time()
        results = [function(value) for value in values]
        return (time.process_time() - start) / len(results), results

    constructing, credentials = timed(construct, range(int(count)))
    refreshing, _ = timed(refresh, credentials)
    return {"construct": constructing, "refresh": refreshing}


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    print(json.dumps(globals()[name](*arguments)), flush=True)
    os._exit(0)  # past the threads that still sleep

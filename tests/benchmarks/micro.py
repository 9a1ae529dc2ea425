"""What takes nano- or microseconds, timed by pyperf in processes of its own. Run by ``__main__``.

Each benchmark is named ``<what>/<side>``. The two sides take turns, for what else the machine does
to disturb both.
"""

import time
from collections.abc import Callable
from typing import Any

import pyperf  # type: ignore[import-untyped]
from azure.core.pipeline import PipelineContext, PipelineRequest
from azure.core.rest import HttpRequest
from sides import OURS, THEIRS, load, make_token, unused

RAW_IDS = [
    "4:+14255550123",
    "8:acs:37691ec4-57fb-4c0f-ae31-32791610cb14_37691ec4-57fb-4c0f-ae31-32791610cb15",
    "8:orgid:45ab2481-1c1c-4005-be24-0ffb879b1130",
    "28:orgid:01234567-89ab-cdef-0123-456789abcdef",
    "8:acs:37691ec4-57fb-4c0f-ae31-32791610cb14_45ab2481-1c1c-4005-be24-0ffb879b1130_01234567-89ab",
]
ENDPOINT = "https://contoso.communication.azure.com"
URL = f"{ENDPOINT}/chat/threads/19:abc@thread.v2/messages?api-version=2024-03-07"
KEY = "aGVsbG8gd29ybGQgaGVsbG8gd29ybGQgaGVsbG8gd29ybGQ="


def get_token(side: str) -> Callable[[], Any]:
    """Return the call that every request makes: a valid token from the cache."""
    credential = load(side, "", "user_credential").CommunicationTokenCredential
    made: Any = credential(make_token(86_400), token_refresher=unused)
    return made.get_token  # type: ignore[no-any-return]


class Bare:
    """The least that a credential could be."""

    def get_token(self, *scopes: str, **kwargs: Any) -> float:
        """Read one clock."""
        return time.time()


def construct(side: str) -> Callable[[], Any]:
    """Return a function that makes a credential with a token and a refresher."""
    credential: Any = load(side, "", "user_credential").CommunicationTokenCredential
    token = make_token(86_400)
    return lambda: credential(token, token_refresher=unused)


def get_token_async(side: str) -> Callable[[], Any]:
    """Return the same call of the asynchronous credential."""
    credential = load(side, ".aio", "user_credential_async").CommunicationTokenCredential
    made: Any = credential(make_token(86_400), token_refresher=unused)
    return made.get_token  # type: ignore[no-any-return]


def parse(side: str) -> Callable[[], Any]:
    """Return a function that parses one raw id of each kind."""
    identifier_from_raw_id = load(side, "", "models").identifier_from_raw_id

    def parse_five() -> None:
        for raw_id in RAW_IDS:
            identifier_from_raw_id(raw_id)

    return parse_five


def parse_and_read(side: str) -> Callable[[], Any]:
    """Return a function that parses them and reads the properties of each."""
    identifier_from_raw_id = load(side, "", "models").identifier_from_raw_id

    def parse_and_read_five() -> None:
        for raw_id in RAW_IDS:
            identifier_from_raw_id(raw_id).properties  # noqa: B018 - for its cost

    return parse_and_read_five


def sign(side: str) -> Callable[[], Any]:
    """Return a function that signs one request."""
    policy = load(side, "", "policy").HMACCredentialsPolicy(ENDPOINT, KEY)
    http_request = HttpRequest("POST", URL, json={"content": "Hello", "type": "text"})
    request = PipelineRequest(http_request, PipelineContext(None))
    return lambda: policy.on_request(request)


def time_ten(loops: int, call: Callable[[], Any]) -> float:
    """Return the seconds of ten times as many calls: a loop of its own for each would count too."""
    start = time.perf_counter()
    for _ in range(loops):
        call(), call(), call(), call(), call(), call(), call(), call(), call(), call()
    return time.perf_counter() - start


def main() -> None:
    """Run all benchmarks, for both sides, as pyperf's options say."""
    runner = pyperf.Runner()
    for function in (get_token, construct, parse, parse_and_read, sign):
        for side in (OURS, THEIRS):
            name = f"{function.__name__}/{side}"
            runner.bench_time_func(name, time_ten, function(side), inner_loops=10)
    runner.bench_time_func("bare", time_ten, Bare().get_token, inner_loops=10)
    for side in (OURS, THEIRS):
        runner.bench_async_func(f"get_token_async/{side}", get_token_async(side))


if __name__ == "__main__":
    main()

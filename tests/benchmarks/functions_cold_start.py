"""Measure what imports add to the start of an Azure Functions worker, and print a table.

    pip install . --group test
    python tests/benchmarks/functions_cold_start.py

takes about a minute and prints Markdown. Each import is timed in a new process that has imported
what the worker imports itself: its library on Python 3.13, azure-functions elsewhere. Rounds go
through all imports, so what else the machine does meets each alike; of the CPU times of an import
the least is taken. The exit code tells whether the package kept within its limits, except with
``--quick``, which shows that everything runs and whose figures are rough.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

SAMPLE = Path(__file__).parents[2] / "samples/azure_functions"
WORKER = "azure_functions_runtime" if sys.version_info >= (3, 13) else "azure.functions"

CODE = """
import sys, time
import {worker}
start = time.process_time()
{imports}
print(time.process_time() - start)
"""
SETTINGS = {
    "COMMUNICATION_SERVICES_CONNECTION_STRING": "endpoint=https://localhost:1;accesskey=a2V5",
    "COMMUNICATION_SERVICES_USER_ID": "8:acs:a_b",
    "PYTHONPATH": str(SAMPLE),
}

CORE = "azure-core's credentials"
IDENTIFIERS = "identifiers of this package"
CREDENTIAL = "credential of this package"
AIO_CREDENTIAL = "the same, aio"
CHAT_AND_OURS = "that, and the credential of this package"
CHAT = "credential of azure-communication-chat, with its clients"
CORE_IMPORTS = "import azure.core.credentials, azure.core.credentials_async, azure.core.exceptions"
IMPORTS = {
    IDENTIFIERS: "from azure.communication.common import deserialize_identifier",
    CORE: CORE_IMPORTS,
    CREDENTIAL: "from azure.communication.common import CommunicationTokenCredential",
    AIO_CREDENTIAL: "from azure.communication.common.aio import CommunicationTokenCredential",
    CHAT: "from azure.communication.chat import CommunicationTokenCredential",
    CHAT_AND_OURS: "import azure.communication.chat\n"
    "from azure.communication.common import CommunicationTokenCredential",
    "azure-core and PyJWT": f"{CORE_IMPORTS}, jwt",
    "azure-core and aiohttp": "from azure.core.pipeline.transport import AioHttpTransport",
    "azure-core and requests": "from azure.core.pipeline.transport import RequestsTransport",
    "azure-core and azure-functions-durable": f"{CORE_IMPORTS}, azure.durable_functions",
    "the sample's clients.py": "import clients",
    "the sample, all of it": "import function_app",
}
LIMIT_OVER_CORE, LIMIT_OF_IDENTIFIERS = 15, 25  # milliseconds


def milliseconds(cache: str, imports: str, worker: str = WORKER) -> float:
    """Return the CPU time of imports in a new process, with a cache of bytecode."""
    code = CODE.format(worker=worker, imports=imports)
    environment = {**os.environ, **SETTINGS, "PYTHONPYCACHEPREFIX": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return 1000 * float(run.stdout)


def main() -> int:
    """Measure, print and compare with the limits."""
    parser = argparse.ArgumentParser(description="Measure the cold start of a Functions worker.")
    parser.add_argument("--quick", action="store_true", help="two rounds in place of fifteen")
    quick = parser.parse_args().quick
    least = dict.fromkeys(IMPORTS, float("inf"))
    of_worker = float("inf")
    with tempfile.TemporaryDirectory() as cache:
        for number in range(2 if quick else 15):  # the first round compiles
            print(f"round {number + 1}", file=sys.stderr)
            of_worker = min(of_worker, milliseconds(cache, f"import {WORKER}", worker="sys"))
            for name, imports in IMPORTS.items():
                least[name] = min(least[name], milliseconds(cache, imports))
    core = least[CORE]

    print(f"Python {sys.version.split()[0]}, azure-core {version('azure-core')}, {WORKER}.\n")
    print(f"| imported after the worker's own {of_worker:.0f} ms | adds | beyond azure-core |")
    print("| --- | --- | --- |")
    for name, value in least.items():
        beyond = f"{value - core:.1f} ms" if value > core else ""
        print(f"| {name} | {value:.1f} ms | {beyond} |")

    limits = [
        (IDENTIFIERS, "", least[IDENTIFIERS], LIMIT_OF_IDENTIFIERS),
        (CREDENTIAL, " beyond azure-core", least[CREDENTIAL] - core, LIMIT_OVER_CORE),
        (AIO_CREDENTIAL, " beyond azure-core", least[AIO_CREDENTIAL] - core, LIMIT_OVER_CORE),
    ]
    print()
    for name, beyond, value, limit in limits:
        verdict = "kept" if value <= limit else "NOT KEPT"
        print(f"- {name}: {value:.1f} ms{beyond}; the limit of {limit} ms is {verdict}.")
    return 0 if quick or all(value <= limit for _, _, value, limit in limits) else 1


if __name__ == "__main__":
    sys.exit(main())

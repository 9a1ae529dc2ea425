"""Coverage-guided fuzzing of the parsers, by Atheris: ``python tests/fuzz --seconds 60``.

The time is shared by the targets; name some to fuzz only these. What the fuzzer finds is written
into the working directory as ``crash-…``, and ``python tests/fuzz TARGET FILE`` runs it again.
Atheris runs on Linux and macOS, with Python 3.11 to 3.13.
"""

import argparse
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-not-found]

with atheris.instrument_imports(include=["azure.communication.common"]):
    from targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


def main() -> int:
    """Fuzz each target in a process of its own, and return how many have failed."""
    parser = argparse.ArgumentParser(prog="python tests/fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="for all targets (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another one finds other things")
    options = parser.parse_args()
    names = options.targets or list(TARGETS)
    failed = 0
    for name in names:
        if name not in TARGETS:
            parser.error(f"there is no target {name!r}: {', '.join(TARGETS)}")
        with tempfile.TemporaryDirectory() as found:
            limits = [
                f"-max_total_time={max(options.seconds // len(names), 1)}",
                "-timeout=5",
                f"-seed={options.seed}",
                "-max_len=4096",
                "-print_final_stats=1",
                "-verbosity=0",
            ]
            command = [sys.executable, __file__, "--fuzz", name, found, str(CORPUS / name), *limits]
            print(f"--- {name}", flush=True)
            failed += subprocess.run(command, check=False).returncode != 0
    return failed


def fuzz(name: str, *arguments: str) -> None:
    """Hand this process over to the fuzzer."""
    logging.disable()
    atheris.enabled_hooks.add("RegEx")
    atheris.Setup([name, *arguments], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fuzz"]:
        fuzz(*sys.argv[2:])
    elif len(sys.argv) == 3 and sys.argv[1] in TARGETS and Path(sys.argv[2]).is_file():
        TARGETS[sys.argv[1]](Path(sys.argv[2]).read_bytes())
    else:
        sys.exit(main())

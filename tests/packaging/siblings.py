"""Import the nine Communication packages and ours in several orders, each in a new interpreter.

They share the namespace ``azure.communication``, so each must leave room for the others, whichever
is first. tox runs this with our wheel and with an editable install.
"""

import random
import subprocess
import sys
from importlib import import_module

PACKAGES = [
    *("callautomation", "chat", "email", "identity", "jobrouter"),
    *("messages", "phonenumbers", "rooms", "sms"),
]
OURS = ["azure.communication.common", "azure.communication.common.aio"]


def main(seed: int) -> None:
    """Import all of them in the order that belongs to the seed, ours first, last or between."""
    names = [f"azure.communication.{name}{aio}" for name in PACKAGES for aio in ("", ".aio")]
    random.Random(seed).shuffle(names)
    place = {0: 0, 1: len(names)}.get(seed, len(names) // 2)
    names[place:place] = OURS
    modules = [import_module(name) for name in names]
    for module in modules:
        for name in module.__all__:
            getattr(module, name)
    where = sys.modules[OURS[0]].__file__
    print(f"{len(modules)} modules, from {names[0]} to {names[-1]}, with {where}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(int(sys.argv[1]))
    else:
        for seed in range(6):
            command = [sys.executable, "-I", "-W", "error", __file__, str(seed)]
            subprocess.run(command, check=True)

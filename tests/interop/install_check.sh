#!/usr/bin/env bash
# Usage: install_check.sh WHEEL [PYTHON]
#
# Installs the wheel beside all nine Communication packages, in one environment, and imports them
# and ours in several orders, each in a new interpreter; then the same with an editable install of
# this tree. Needs a network.
set -euo pipefail
wheel=$(realpath "$1") python=${2:-python3} tree=$(realpath "$(dirname "$0")/../..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m venv "$work/environment"
bin=$work/environment/bin
"$bin/pip" install --quiet --upgrade pip
"$bin/pip" install --quiet --group "$tree/pyproject.toml:interop"
cd "$work"
for ours in "$wheel" "--editable $tree"; do
    # shellcheck disable=SC2086 # two words
    "$bin/pip" install --quiet $ours
    "$bin/pip" check
    for seed in 0 1 2 3 4 5; do
        "$bin/python" -I -W error - "$seed" <<'PYTHON'
import random
import sys
from importlib import import_module

PACKAGES = "callautomation chat email identity jobrouter messages phonenumbers rooms sms".split()
names = [f"azure.communication.{name}{aio}" for name in PACKAGES for aio in ("", ".aio")]
random.Random(sys.argv[1]).shuffle(names)
place = {"0": 0, "1": len(names)}.get(sys.argv[1], len(names) // 2)  # first, last, between
names[place:place] = ["azure.communication.common", "azure.communication.common.aio"]
modules = [import_module(name) for name in names]
for module in modules:
    for name in module.__all__:
        getattr(module, name)
common = sys.modules["azure.communication.common"]
print(f"{len(modules)} modules, from {names[0]} to {names[-1]}, with {common.__file__}")
PYTHON
    done
done

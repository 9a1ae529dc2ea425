"""Copy this tree, without the package, to a folder, from which tox runs the tests.

Nothing that they start there can import any other package than the one that is installed.
"""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

target = Path(sys.argv[1])
for path in ROOT.iterdir():
    if path.name.startswith(".") or path.name in ("azure", "build", "dist"):
        continue
    if path.is_dir():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(path, target / path.name, ignore=ignored, dirs_exist_ok=True)
    else:
        shutil.copy2(path, target)

"""Compare what is in the wheel and in the sdist of ``dist/`` with the files that git knows."""

import subprocess
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "azure/communication/common/"
NOT_IN_SDIST = (".ci/", ".github/")

listed = subprocess.run(
    ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
).stdout.splitlines()
files = {name for name in listed if (ROOT / name).is_file()}

(wheel,) = (ROOT / "dist").glob("*.whl")
names = zipfile.ZipFile(wheel).namelist()
in_wheel = {name for name in names if ".dist-info/" not in name}
differ = in_wheel ^ {name for name in files if name.startswith(PACKAGE)}
assert not differ, f"the wheel differs from the sources in {sorted(differ)}"
assert f"{PACKAGE}py.typed" in in_wheel, "type checkers would not look into the wheel"
assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names), "no licence there"

(sdist,) = (ROOT / "dist").glob("*.tar.gz")
with tarfile.open(sdist) as archive:
    in_sdist = {member.name.partition("/")[2] for member in archive if member.isfile()}
differ = in_sdist ^ ({name for name in files if not name.startswith(NOT_IN_SDIST)} | {"PKG-INFO"})
assert not differ, f"the sdist differs from the tree in {sorted(differ)}"
print(f"{len(in_wheel)} files in {wheel.name}, {len(in_sdist)} in {sdist.name}")

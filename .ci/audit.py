"""Look for known holes in what the lock names, and in the oldest versions that pyproject.toml allows.

    python .ci/audit.py PIP_AUDIT

First against fixed-holes.txt, which needs no network, then by pip-audit. Where no service answers or the index says
nothing of holes, that part is skipped, and said to be. Ends with 1 if something is found.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
LOCK = HERE / "requirements.txt"


def parts(version: str) -> tuple[int, ...]:
    """Give a version's numbers, to be compared."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:4])


def known_holes() -> list[str]:
    """Compare locked versions and lower bounds with the first releases without a hole."""
    locked = dict(re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", LOCK.read_text(), re.MULTILINE))
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    lowest = dict(re.findall(r"([a-z0-9._-]+)>=([0-9.]+)", " ".join(project["dependencies"])))
    rows = [line.split(maxsplit=2) for line in (HERE / "fixed-holes.txt").read_text().splitlines()]
    found = []
    for name, fixed, holes in (row for row in rows if row and row[0] != "#"):
        for what, versions in (("the lock names", locked), ("pyproject.toml allows", lowest)):
            version = versions.get(name)
            if version is None:
                found.append(f"{name}: {what} no version; is fixed-holes.txt out of date?")
            elif parts(version) < parts(fixed):
                found.append(f"{name}: {what} {version}, before {fixed}: {holes}")
    return found


def from_service(pip_audit: str) -> list[str]:
    """Ask the service; say on standard output what could not be asked."""
    command = [
        pip_audit,
        "--disable-pip",
        "--require-hashes",
        "-r",
        str(LOCK),
        "-f",
        "json",
        "--progress-spinner",
        "off",
    ]
    done = subprocess.run([*command, "--timeout", "20"], capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"audit by a service: skipped, it cannot be reached: {done.stderr.strip().splitlines()[-1:]}")
        return []
    unknown = [one["name"] for one in packages if "vulns" not in one]
    if unknown:
        print(f"audit by a service: skipped for {len(unknown)} of {len(packages)} packages, of which it knows nothing")
    return [
        f"{one['name']} {one['version']}: {hole['id']}, fixed in {', '.join(hole['fix_versions']) or 'no release'}"
        for one in packages
        for hole in one.get("vulns", [])
    ]


if __name__ == "__main__":
    findings = [*known_holes(), *from_service(sys.argv[1])]
    print("\n".join(findings) or "audit: no known hole found")
    sys.exit(bool(findings))

"""Runs batchrun in this process and writes its peak resident memory, in bytes, to the file named first.

The kernel's own account for a child (`ru_maxrss`) also counts what the parent held when it forked.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    report = Path(sys.argv.pop(1))
    try:
        runpy.run_module("batchrun", run_name="__main__", alter_sys=True)
    finally:
        status = Path("/proc/self/status").read_text()
        report.write_text(str(1024 * int(status.split("VmHWM:")[1].split()[0])))

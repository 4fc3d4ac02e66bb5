"""Runs the api role with all patience for tokens that are refused: `python -m tests.contract.role MODULE`.

The run sends hundreds of bad ones from one address; slowed down, it would be told nothing else. tests/api holds the
brake to its promise.
"""

from __future__ import annotations

import runpy
import sys

from api import throttle

if __name__ == "__main__":
    throttle.MOST = 1_000_000_000
    module = sys.argv.pop(1)
    runpy.run_module(module, run_name="__main__", alter_sys=True)

"""A test run that is killed leaves neither processes nor folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.flow.test_guardian import wait_gone

# A test run whose server and role sleep; says their pids, that of who removes its folder, and the folder.
RUN = """
import subprocess, sys, time
from relay.guardian import Ward
from tests.keeping import Keeper, kept
keeper = Keeper("postferry-kept-")
command, how = ["sleep", "60"], {"stdout": subprocess.DEVNULL, "start_new_session": True}
server, role = (subprocess.Popen(command, **how) for _ in range(2))
keeper.watch(Ward(0, server.pid, 15, 5))
with kept(role.pid):
    print(server.pid, role.pid, keeper._remover.pid, keeper.folder, flush=True)
    time.sleep(60)
"""


def test_what_is_kept_ends_with_a_run_that_is_killed() -> None:
    run = subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    *pids, folder = run.stdout.readline().split()
    assert Path(folder).is_dir()
    run.kill()
    run.communicate()
    assert [wait_gone(int(pid)) for pid in pids] == [True] * 3
    assert not Path(folder).exists()

"""A fresh Postfix in a folder of its own, beside whatever Postfix the machine runs, which is left alone.

Three ports: one that relays to the sink, one that relays a copy for each recipient (as personal pixels ask for), and
one that keeps the mail on hold, so that accepting is measured without delivering. It is set up generously: as many
connections to the sink as Postferry has, cached connections, no DNS, no TLS, no rate or flow limits.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

from relay.guardian import Guardian, Ward, stop
from tests.bench.ports import free_port, wait_for_port

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
INSTALL = "apt-get install -y postfix   (choose 'No configuration'; DEBIAN_FRONTEND=noninteractive skips the question)"

MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
mail_owner = postfix
myhostname = postfix.bench
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
local_recipient_maps =
alias_maps =
local_transport = error:no local mail
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
smtpd_tls_security_level = none
smtp_tls_security_level = none
disable_dns_lookups = yes
smtp_host_lookup = native
relayhost = [127.0.0.1]:{sink}
default_process_limit = 100
in_flow_delay = 0
message_size_limit = 104857600
initial_destination_concurrency = {connections}
default_destination_concurrency_limit = {connections}
smtp_connection_cache_on_demand = yes
smtp_connection_cache_destinations = 127.0.0.1
copies_destination_recipient_limit = 1
{more}
"""
MASTER = """\
127.0.0.1:{relaying} inet n - n - - smtpd
127.0.0.1:{holding} inet n - n - - smtpd -o smtpd_client_restrictions=static:HOLD
127.0.0.1:{copying} inet n - n - - smtpd -o content_filter=copies:[127.0.0.1]:{sink}
copies unix - - n - - smtp -o smtp_connection_cache_destinations=127.0.0.1
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def missing() -> str:
    """Why Postfix cannot be measured here, and what to do; "" when it can."""
    if not shutil.which("postfix", path=PATH):
        return f"Postfix is not installed: {INSTALL}"
    if os.geteuid() != 0:
        return "Postfix starts as root only: run the bench as root to have it beside"
    return ""


def version() -> str:
    """Postfix's version."""
    postconf = shutil.which("postconf", path=PATH) or "postconf"
    run = subprocess.run([postconf, "-d", "-h", "mail_version"], capture_output=True, text=True, check=True)
    return run.stdout.strip()


class Postfix:
    """Use as a context: started on entry, stopped on exit, its folder left to the caller."""

    name = "postfix"

    def __init__(self, folder: Path, sink: int, connections: int, more: str = "") -> None:
        """`more`: lines of main.cf."""
        self.folder, self.more = folder, more
        self.relaying, self.holding, self.copying = free_port(), free_port(), free_port()
        self.sink, self.connections = sink, connections

    def __enter__(self) -> Postfix:
        self._write()
        log = (self.folder / "start.log").open("wb")
        command = ["postfix", "-c", str(self.folder / "etc"), "start-fg"]
        self.process = subprocess.Popen(
            command, env=os.environ | {"PATH": PATH}, stdout=log, stderr=log, start_new_session=True
        )
        for port in (self.relaying, self.holding, self.copying):
            wait_for_port(port, self.process, self.folder / "mail.log")
        # The script above stays its parent; the master leads a process group of its own, and takes it along.
        master = int((self.folder / "queue" / "pid" / "master.pid").read_text())
        self.ward = Ward(0, master, signal.SIGTERM, 10)
        self.guardian = Guardian()
        self.guardian.watch(self.ward)
        return self

    def __exit__(self, *_: object) -> None:
        stop([self.ward])
        self.guardian.close()
        self.process.wait()

    def _write(self) -> None:
        etc = self.folder / "etc"
        etc.mkdir(parents=True)
        (self.folder / "queue").mkdir(mode=0o755)
        (self.folder / "data").mkdir(mode=0o700)
        owner = pwd.getpwnam("postfix")
        os.chown(self.folder / "data", owner.pw_uid, owner.pw_gid)
        (etc / "main.cf").write_text(
            MAIN.format(**vars(self)) + f"copies_destination_recipient_limit = 1\n{self.more}\n"
        )
        (etc / "master.cf").write_text(MASTER.format(**vars(self)))

    def release(self) -> None:
        """Mail on hold goes, as fast as it can."""
        for command in (["postsuper", "-H", "ALL"], ["postqueue", "-f"]):
            place = ["-c", str(self.folder / "etc")]
            subprocess.run(
                [command[0], *place, *command[1:]], env=os.environ | {"PATH": PATH}, check=True, capture_output=True
            )

    def held(self) -> int:
        """Messages on hold: each was accepted, none is delivered."""
        return sum(len(files) for _, _, files in os.walk(self.folder / "queue" / "hold"))

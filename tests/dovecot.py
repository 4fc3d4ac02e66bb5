"""A real Dovecot (2.3) for the tests: without root's rights, on loopback, in a folder that ends with it.

    dovecot.imap("ann", tls=Tls.IMPLICIT)     # settings of a mailbox there; its password is in PASSWORDS
    dovecot.empty("ann")                      # a new mailbox: tests share the server

Each user has INBOX and folders of odd names for all special uses, flagged. Those of `bob`
have the prefix INBOX. and no flags at all, as old servers do.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from typing import Any

from relay.core.tenant import Imap, Tls
from relay.guardian import Ward, stop
from tests.fakes.upstream import certificate
from tests.keeping import Keeper

PROGRAM = shutil.which("dovecot", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
PASSWORDS = {"ann": "secret", "bob": "secret", "zoë": 'a "b\\c', "uml": "pässwörd-€"}
SECONDS = 60.0  # that it may take to start
NOBODY = 65534

CONFIGURATION = """
base_dir = {folder}/run
state_dir = {folder}/run
log_path = {folder}/log
protocols = imap
listen = 127.0.0.1
mail_location = maildir:~/Maildir:LAYOUT=fs
default_login_user = {user}
default_internal_user = {user}
default_internal_group = {group}
first_valid_uid = 1
mail_uid = {uid}
mail_gid = {gid}
auth_mechanisms = plain login
auth_username_chars =
auth_verbose_passwords = no
auth_failure_delay = 0
disable_plaintext_auth = no
ssl = yes
ssl_cert = <{folder}/cert.pem
ssl_key = <{folder}/key.pem
service imap-login {{
  chroot =
  process_min_avail = 1
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = {tls_port}
    ssl = yes
  }}
}}
mail_max_userip_connections = 200
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
passdb {{
  driver = passwd-file
  args = {folder}/users
}}
userdb {{
  driver = passwd-file
  args = {folder}/users
  default_fields = home={folder}/mail/%u
}}
namespace inbox {{
  inbox = yes
  separator = /
  mailbox Ablage {{
    special_use = \\All
    auto = create
  }}
  mailbox "Verschickt & raus" {{
    special_use = \\Sent
    auto = create
  }}
  mailbox Müll {{
    special_use = \\Trash
    auto = create
  }}
  mailbox Unfertig {{
    special_use = \\Drafts
    auto = create
  }}
  mailbox Kram {{
    special_use = \\Junk
    auto = create
  }}
}}
namespace old {{
  disabled = yes
  inbox = yes
  prefix = INBOX.
  separator = .
  mailbox Gesendet {{
    auto = create
  }}
  mailbox Papierkorb {{
    auto = create
  }}
}}
"""
OLD = "userdb_namespace/old/disabled=no userdb_namespace/inbox/disabled=yes"


class Dovecot:
    """Started when it is made; `stop` it."""

    host = "127.0.0.1"

    def __init__(self, port: int, tls_port: int) -> None:
        self.port, self.tls_port = port, tls_port
        self._guardian = Keeper("postferry-dovecot-")
        self.folder = self._guardian.folder
        self._write()
        assert PROGRAM is not None
        command = [PROGRAM, "-F", "-c", str(self.folder / "dovecot.conf")]
        self._process = subprocess.Popen(command, start_new_session=True)
        self._ward = Ward(0, self._process.pid, signal.SIGTERM, 1.0)  # nobody misses its mail
        self._guardian.watch(self._ward)
        self._wait()

    @staticmethod
    def missing() -> str:
        """Why there can be none here; "" when there can."""
        if PROGRAM is None:
            return "there is no dovecot here: apt-get install dovecot-imapd"
        version = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
        return "" if version.startswith("2.3.") else f"the tests speak Dovecot 2.3's configuration, this is {version}"

    def imap(self, user: str, tls: Tls = Tls.NONE, **more: Any) -> Imap:
        """A mailbox here. Its certificate is one that nobody trusts, unless the test sees to it."""
        port = self.tls_port if tls is Tls.IMPLICIT else self.port
        return Imap(self.host, port, tls, **{"user": user, "password": PASSWORDS[user], **more})

    def empty(self, user: str) -> None:
        """Its mail and folders are gone: the next login finds a new mailbox."""
        shutil.rmtree(self.folder / "mail" / user, ignore_errors=True)

    def stop(self) -> None:
        stop([self._ward])
        self._process.wait()
        self._guardian.forget(self._process.pid)
        self._guardian.close()

    def _write(self) -> None:
        """As root, mail is nobody's: Dovecot gives root none."""
        root = os.geteuid() == 0
        uid, gid = (NOBODY, NOBODY) if root else (os.geteuid(), os.getegid())
        self.folder.chmod(0o755)
        for name in ("run", "mail"):
            (self.folder / name).mkdir()
        if root:
            os.chown(self.folder / "mail", uid, gid)
        pem, key = certificate()
        (self.folder / "cert.pem").write_bytes(pem)
        (self.folder / "key.pem").write_bytes(key)
        more = {"bob": OLD}
        users = "".join(f"{user}:{{PLAIN}}{word}::::::{more.get(user, '')}\n" for user, word in PASSWORDS.items())
        (self.folder / "users").write_text(users)
        (self.folder / "dovecot.conf").write_text(
            CONFIGURATION.format(
                folder=self.folder,
                user=_name("passwd", uid),
                group=_name("group", gid),
                uid=uid,
                gid=gid,
                port=self.port,
                tls_port=self.tls_port,
            )
        )

    def _wait(self) -> None:
        deadline = time.monotonic() + SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                with socket.create_connection((self.host, self.port), timeout=1) as sock:
                    if sock.recv(4) == b"* OK":
                        return
            except OSError:
                time.sleep(0.05)
        log = self.folder / "log"
        said = log.read_text() if log.exists() else ""
        self.stop()
        raise RuntimeError(f"Dovecot does not start:\n{said}")


def _name(table: str, number: int) -> str:
    import grp
    import pwd

    return pwd.getpwuid(number).pw_name if table == "passwd" else grp.getgrgid(number).gr_name

"""The SMTP verbs (RFC 5321), one method each."""

from __future__ import annotations

import asyncio
from typing import NoReturn

from relay import metrics
from relay.core.errors import Refused, StoreAway
from relay.ingress import login as auth
from relay.ingress.connection import Connection
from relay.ingress.content import Content
from relay.ingress.envelope import Bad, Envelope
from relay.ingress.login import Login

MOST_FAILED_LOGINS = 4
MOST_IDLE = 100  # commands that do nothing, between two accepted messages
SLOWEST_LOGIN = 30.0  # seconds
PACE = 1000  # bytes a second: who is slower runs out of time, however steadily it drips
TOO_LARGE = "552 5.3.4"
TOO_MUCH = "452 4.3.1 Too much mail is arriving at once, try again later: closing"
FALSE_END = "550 5.6.11 A message ends with CRLF.CRLF, and yours ended otherwise: closing"
HTTP = frozenset({"GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "DELETE", "PATCH"})


class Session(Connection):
    """What was said so far decides what a verb means: greeted, logged in, in a transaction."""

    greeted: bool = False
    login: Login | None = None
    failed_logins: int = 0
    idle: int = 0
    astray: int = 0
    transaction: Envelope

    def _set_rset_state(self) -> None:
        self.transaction = Envelope()

    async def obey(self, command: str) -> None:
        verb, _, argument = command.partition(" ")
        verb = verb.upper()
        method = VERBS.get(verb)
        if method is not None:
            await method(self, argument.strip(" "))
        elif verb in HTTP:  # a browser was talked into posting to us, and its page would speak SMTP next
            self.hang_up("421 4.7.0 This is not HTTP")
        else:
            raise Bad("Command not recognised", smtp="500 5.5.1")

    # ---- greeting

    async def smtp_EHLO(self, argument: str) -> None:
        self._greet(argument)
        offered = [self.hostname, f"SIZE {self.door.settings.max_message_size}"]
        offered += ["8BITMIME", "SMTPUTF8", "PIPELINING", "ENHANCEDSTATUSCODES"]
        if self.door.tls and not self.secure:
            offered.append("STARTTLS")
        if self._login_is_safe():
            offered.append("AUTH " + " ".join(auth.MECHANISMS))
        for keyword in offered[:-1]:
            self.say(f"250-{keyword}")
        self.say(f"250 {offered[-1]}")

    async def smtp_HELO(self, argument: str) -> None:
        self._greet(argument)
        self.say(f"250 {self.hostname}")

    def _greet(self, name: str) -> None:
        if not name:
            raise Bad("Say your name: EHLO hostname")
        self._idle()
        self.greeted = True
        self._set_rset_state()

    async def smtp_STARTTLS(self, argument: str) -> None:
        if self.door.tls is None or self.secure:
            raise Bad("TLS is on already" if self.secure else "TLS is not offered", smtp="503 5.5.1")
        _nothing(argument, "STARTTLS")
        if self.inbox.size:
            self.hang_up("554 5.5.1 Nothing may follow STARTTLS until TLS has begun: closing")
        self.say("220 2.0.0 Ready to start TLS")
        await self.begin_tls()
        self.greeted, self.login, self.known = False, None, self.trusted
        self._set_rset_state()

    # ---- login

    async def smtp_AUTH(self, argument: str) -> None:
        self._may_log_in()
        credentials = await self._exchange(argument)
        try:
            good = credentials is not None and await credentials.holds(self.door.directory)
        except StoreAway:
            raise Refused("Logins cannot be checked now, try again later", smtp="454 4.7.0") from None
        if not good:
            await self._fail_login()
            raise auth.refused()
        self.login, self.known = credentials, True
        self.say("235 2.7.0 Authentication successful")

    def _may_log_in(self) -> None:
        if not self.greeted:
            raise Bad("Send EHLO first", smtp="503 5.5.1")
        if self.login is not None or self.transaction.sender is not None:
            raise Bad("AUTH comes once, and before MAIL", smtp="503 5.5.1")
        if not self._login_is_safe():
            raise Refused("AUTH needs TLS here: STARTTLS first", smtp="538 5.7.11")

    def _login_is_safe(self) -> bool:
        """Without a certificate AUTH goes in the clear: many run us inside a private network."""
        return self.secure or self.door.tls is None or self.trusted

    async def _exchange(self, argument: str) -> Login | None:
        mechanism, _, initial = argument.partition(" ")
        match mechanism.upper():
            case "PLAIN":
                return auth.plain(initial or await self._ask(""))
            case "LOGIN":
                user = initial or await self._ask(auth.USERNAME)
                auth.decode(user)  # a client that gives up is not asked for its password
                return auth.login(user, await self._ask(auth.PASSWORD))
            case _:
                raise Bad(f"Mechanisms are {' and '.join(auth.MECHANISMS)}", smtp="504 5.5.4")

    async def _ask(self, challenge: str) -> str:
        self.say(f"334 {challenge}")
        return await self.line()

    async def _fail_login(self) -> None:
        """Slower each time, and then no more."""
        self.failed_logins += 1
        metrics.AUTH_FAILURES.labels("smtp").inc()
        self.tell("a login was refused")
        await asyncio.sleep(min(self.door.settings.smtp_auth_delay * 2 ** (self.failed_logins - 1), SLOWEST_LOGIN))
        if self.failed_logins >= MOST_FAILED_LOGINS:
            self.hang_up("421 4.7.0 Too many failed logins")

    # ---- a transaction

    async def smtp_MAIL(self, argument: str) -> None:
        if not self.greeted:
            raise Bad("Send EHLO first", smtp="503 5.5.1")
        if self.login is None and not self.trusted:
            raise Bad("Authentication required", smtp="530 5.7.0")
        if self.transaction.sender is not None:
            raise Bad("A transaction is open already", smtp="503 5.5.1")
        self.transaction.mail(argument, max_size=self.door.settings.max_message_size)
        self.say("250 2.1.0 OK")

    async def smtp_RCPT(self, argument: str) -> None:
        if self.transaction.sender is None:
            self._astray("MAIL comes first", smtp="503 5.5.1")
        recipient = self.transaction.rcpt(argument, most=self.door.settings.max_recipients)
        await self._leave_out_suppressed(recipient)
        self.say("250 2.1.5 OK")

    async def _leave_out_suppressed(self, recipient: str) -> None:
        """Raises Refused for one that the account of the login sends to no longer; accept asks for all others."""
        if self.login is None:
            return  # whose mail it is, the message may say
        found = await self.door.directory.suppressed(self.login.user, recipient)
        if found is not None:
            self.transaction.leave_out(recipient)
            metrics.SUPPRESSED.labels("smtp").inc()
            raise found

    async def smtp_DATA(self, argument: str) -> None:
        if self.transaction.sender is None:
            self._astray("MAIL comes first", smtp="503 5.5.1")
        if not self.transaction.recipients:
            self._astray("No valid recipients", smtp="554 5.5.1")
        _nothing(argument, "DATA")
        envelope = self.transaction
        self._set_rset_state()
        self.say("354 End data with <CR><LF>.<CR><LF>")
        content = await self._receive()
        self.holds_message = True
        reply = await self.door.intake.take(envelope, content, self.login, self.client)
        self.holds_message = False
        if reply.startswith("250"):
            self.bad = self.idle = self.astray = 0
        else:
            _count(reply)
        for line in reply.split("\n"):
            self.say(line)

    async def _receive(self) -> bytes:
        """The content, up to its end. Raises Refused when it was too large, and hangs up when there is no end to it."""
        settings, started = self.door.settings, self.door.loop.time()
        content = Content(settings.max_message_size)
        with self.door.arrivals.of(self.login.user if self.login else None) as arriving:
            while (rest := content.feed(self.inbox.take())) is None:
                if content.ends_falsely:
                    self._refuse_and_hang_up(FALSE_END)
                if content.received > 2 * settings.max_message_size:
                    self._refuse_and_hang_up(f"{TOO_LARGE} Too large: at most {settings.max_message_size}, closing")
                if not arriving.holds(content.held):
                    self._refuse_and_hang_up(TOO_MUCH)
                await self.listen(self._patience(started, content.received))
        self.inbox.give_back(rest)
        if content.too_large:
            _count(TOO_LARGE)
            raise Refused(f"Too large: {settings.max_message_size} bytes at most", smtp=TOO_LARGE)
        if content.holds_false_end:  # another server may have read a second message there: read no more
            self._refuse_and_hang_up(FALSE_END)
        return content.message()

    def _patience(self, started: float, received: int) -> float:
        """Until when more must come: nobody may be silent for long, drip, or take for ever."""
        settings = self.door.settings
        silent = self.door.loop.time() + settings.smtp_timeout
        dripping = started + settings.smtp_timeout + received / PACE
        return min(silent, dripping, started + settings.smtp_data_timeout)

    def _refuse_and_hang_up(self, reply: str) -> NoReturn:
        _count(reply)
        self.hang_up(reply)

    # ---- the rest

    async def smtp_RSET(self, argument: str) -> None:
        _nothing(argument, "RSET")
        self._idle()
        self._set_rset_state()
        self.say("250 2.0.0 OK")

    async def smtp_NOOP(self, argument: str) -> None:
        self._idle()
        self.say("250 2.0.0 OK")

    async def smtp_VRFY(self, argument: str) -> None:
        self._idle()
        self.say("252 2.5.2 Not verified, but mail for it is taken")

    async def smtp_EXPN(self, argument: str) -> None:
        raise Bad("There are no lists here", smtp="502 5.5.1")

    async def smtp_HELP(self, argument: str) -> None:
        self._idle()
        self.say("214 2.0.0 Commands: " + " ".join(sorted(VERBS)))

    def _idle(self) -> None:
        """Keeping a connection with nothing to send has an end."""
        self.idle += 1
        if self.idle > MOST_IDLE:
            self.hang_up("421 4.7.0 Too many commands without a message")

    def _astray(self, message: str, *, smtp: str) -> NoReturn:
        """What was pipelined behind a refused MAIL has no place: that is nobody's fault, and has an end."""
        self.astray += 1
        if self.astray > MOST_IDLE + self.door.settings.max_recipients:
            self.hang_up("421 4.7.0 Too many commands out of order")
        raise Refused(message, smtp=smtp)

    async def smtp_QUIT(self, argument: str) -> None:
        self.hang_up("221 2.0.0 Bye")


VERBS = {name.removeprefix("smtp_"): getattr(Session, name) for name in dir(Session) if name.startswith("smtp_")}


def _count(reply: str) -> None:
    """A submission was refused: counted by the enhanced status code of the reply."""
    metrics.REFUSED.labels("smtp", reply[4:].split(" ", 1)[0]).inc()


def _nothing(argument: str, verb: str) -> None:
    if argument:
        raise Bad(f"{verb} stands alone")

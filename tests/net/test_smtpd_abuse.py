"""Hostile and careless clients: smuggling, floods, drips, endless lines. Bounded, told why, and nobody else suffers."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from dataclasses import replace

import pytest

from relay.ingress.connection import AT_ONCE
from relay.ingress.session import MOST_IDLE
from tests.fakes.ingress import MESSAGE, PLAIN, Client, House, Token, account, opened, sasl
from tests.stack import until

HEAD = b"X-Account: a1\r\nFrom: a@one.example\r\n\r\nbody"
TAIL = b"MAIL FROM:<x@one.example>\r\nRCPT TO:<victim@two.example>\r\nDATA\r\nX-Account: a1\r\n\r\nx\r\n.\r\n"
LOOKALIKES = [
    *(b"\n.\n", b"\r.\r", b"\r.\n", b"\n.\r", b"\n.\r\n", b"\r\n.\n", b"\r.\r\n", b"\r\n.\r"),
    *(b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n.\r\r\n", b"\r\r\n.\r\r\n"),
]


async def rest(client: Client) -> list[str]:
    """All replies until the server closes."""
    replies = []
    while said := await client.reply():
        replies.append(said)
    return replies


# ---- smuggling


@pytest.mark.parametrize("lookalike", LOOKALIKES)
async def test_nothing_after_a_lookalike_is_a_command(lookalike: bytes) -> None:
    async with opened() as house:
        client = await house.ready()
        await client.begin()
        await client.send(HEAD + lookalike + TAIL + b"QUIT\r\n")
        (only,) = await rest(client)
        assert only.startswith("550 5.6.11")
        assert not house.acceptor.taken


@pytest.mark.parametrize("lookalike", [each for each in LOOKALIKES if each != b"\r\n.\r"])  # that may yet end truly
async def test_a_client_that_waits_after_a_lookalike_is_told(lookalike: bytes) -> None:
    async with opened() as house:
        client = await house.ready()
        await client.begin()
        await client.send(HEAD + lookalike)
        (only,) = await rest(client)
        assert only.startswith("550 5.6.11")


@pytest.mark.parametrize("bare", [b"a\nb", b"a\rb", b"a\0b", b"\n", b"\r\r\n"])
async def test_bare_line_ends_and_nul_are_refused_and_the_session_goes_on(bare: bytes) -> None:
    async with opened() as house:
        client = await house.ready()
        assert (await client.submit(MESSAGE + bare + b"\r\n")).startswith("550 5.6.11")
        assert (await client.submit()).startswith("250")


@pytest.mark.parametrize(
    "line", [b"NOOP\n", b"NOOP\rQUIT\r\n", b"NO\0OP\r\n", b"\r\nNOOP\n", b"NOOP\r\r\n", b"EHLO x>\n\rDATA\r\n"]
)
async def test_a_command_ends_with_crlf_alone(line: bytes) -> None:
    async with opened() as house:
        client = await house.ready()
        await client.send(line)
        assert (await client.reply()).startswith("500 5.5")


@pytest.mark.parametrize(
    "address", [b"b@two.example>\rDATA\rx\r.\r", b"b@two.example\0", b"b@two.example>\n<c@two.example"]
)
async def test_an_address_cannot_carry_a_command(address: bytes) -> None:
    async with opened() as house:
        client = await house.ready()
        await client.ask("MAIL FROM:<a@one.example>")
        assert (await client.ask(b"RCPT TO:<" + address + b">")).startswith("5")
        assert (await client.ask("DATA")).startswith("5")


async def test_bytes_that_are_no_utf8_are_no_command() -> None:
    async with opened() as house:
        client = await house.ready()
        assert (await client.ask(b"MAIL FROM:<\xff\xfe@one.example>")).startswith("500 5.5.2")


async def test_a_browser_is_turned_away_before_its_page_speaks_smtp() -> None:
    async with opened() as house:
        client = await house.client(first=b"POST / HTTP/1.1\r\nHost: x\r\n\r\nEHLO x\r\nMAIL FROM:<a@one.example>\r\n")
        assert [said[:3] for said in await rest(client)] == ["220", "421"]


# ---- size


async def test_size_is_judged_at_mail() -> None:
    async with opened(max_message_size=2000) as house:
        client = await house.ready()
        assert (await client.ask("MAIL FROM:<a@one.example> SIZE=2001")).startswith("552 5.3.4")
        assert (await client.ask("MAIL FROM:<a@one.example> SIZE=2000")).startswith("250")


@pytest.mark.parametrize(("size", "code"), [(2000, "250 2.0.0"), (2001, "552 5.3.4"), (3900, "552 5.3.4")])
async def test_size_is_judged_while_reading_and_the_session_goes_on(size: int, code: str) -> None:
    async with opened(max_message_size=2000) as house:
        client = await house.ready()
        content = MESSAGE + b"x" * (size - len(MESSAGE) - 2) + b"\r\n"
        assert (await client.submit(content)).startswith(code)
        assert (await client.submit()).startswith("250")


async def test_content_that_never_ends_is_cut_off_without_keeping_it() -> None:
    async with opened(max_message_size=20_000) as house:
        client = await house.ready()
        await client.begin()
        await client.send(b"x" * 60_000)
        (only,) = await rest(client)
        assert only.startswith("552 5.3.4")


async def test_200_mib_without_a_line_end_cost_no_memory() -> None:
    async with opened(max_message_size=1 << 20) as house:
        client = await house.ready()
        await client.begin()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await pour(client, b"x" * (1 << 20), times=200)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 32 * 1024  # KiB
        assert (await (await house.ready()).submit()).startswith("250")
        assert len(house.acceptor.taken) == 1


async def test_lines_of_any_length_are_content() -> None:
    async with opened() as house:
        client = await house.ready()
        content = MESSAGE + b"x" * 100_000 + b"\r\n"
        assert (await client.submit(content)).startswith("250")
        assert house.acceptor.taken[0].mail.content.endswith(b"x\r\n")


async def test_a_large_message_is_taken_whole() -> None:
    async with opened() as house:
        client = await house.ready()
        content = MESSAGE + b"0123456789abcde\r\n" * 500_000
        assert (await client.submit(content)).startswith("250")
        assert house.acceptor.taken[0].mail.content.count(b"0123456789abcde\r\n") == 500_000


# ---- too many


async def test_recipients_past_the_bound_are_refused_and_the_others_stand() -> None:
    async with opened(max_recipients=100) as house:
        client = await house.ready()
        await client.ask("MAIL FROM:<a@one.example>")
        await client.send(b"".join(b"RCPT TO:<r%d@two.example>\r\n" % number for number in range(10_000)))
        codes = [(await client.reply())[:9] for _ in range(10_000)]
        assert codes == ["250 2.1.5"] * 100 + ["452 4.5.3"] * 9_900
        await client.ask("DATA")
        assert (await client.ask(MESSAGE + b".")).startswith("250")
        assert len(house.acceptor.taken[0].recipients) == 100


async def test_bad_commands_end_the_session() -> None:
    async with opened() as house:
        client = await house.ready()
        await client.send(b"XYZZY\r\n" * 30)
        said = await rest(client)
        assert [line[:9] for line in said] == ["500 5.5.1"] * 19 + ["421 4.7.0"]


async def test_connections_past_the_bound_are_told_so_and_a_free_place_is_given_again() -> None:
    async with opened(smtp_connections=2) as house:
        inside = [await house.ready(), await house.ready()]
        third = await house.client()
        assert (await third.reply()).startswith("421 4.3.2")
        assert await third.closed()
        for client in inside:
            await client.ask("QUIT")
            client.close()
        assert await house.door.emptied(10)
        assert (await (await house.client()).reply()).startswith("220")


# ---- lines without end, clients without haste


async def test_a_line_too_long_is_refused_and_the_session_goes_on() -> None:
    async with opened() as house:
        client = await house.ready()
        assert (await client.ask("NOOP " + "x" * 20_000)).startswith("500 5.5.2")
        assert (await client.ask("NOOP")).startswith("250")


async def test_a_line_without_end_is_cut_off() -> None:
    async with opened() as house:
        client = await house.ready()
        await client.send(b"x" * 100_000)
        (only,) = await rest(client)
        assert only.startswith("421 4.7.0")


async def test_a_silent_client_is_sent_away() -> None:
    async with opened() as house:
        client = await house.ready()
        hurry(house, smtp_timeout=0.1)
        await client.ask("NOOP")
        assert (await client.reply()).startswith("421 4.4.2")
        assert await client.closed()


async def test_a_line_that_drips_is_a_silent_client() -> None:
    async with opened() as house:
        client = await house.ready()
        hurry(house, smtp_timeout=0.3)
        await client.ask("NOOP")
        await drip(client)
        assert (await client.reply()).startswith("421 4.4.2")


@pytest.mark.parametrize("limit", ["smtp_timeout", "smtp_data_timeout"])
async def test_content_that_drips_runs_out_of_time(limit: str) -> None:
    async with opened(smtp_timeout=3600) as house:
        client = await house.ready()
        await client.begin()
        hurry(house, **{limit: 0.3})
        await drip(client)
        assert (await client.reply()).startswith("421 4.4.2")
        assert not house.acceptor.taken


async def test_a_client_that_reads_no_replies_is_sent_away() -> None:
    async with opened(smtp_timeout=0.3) as house:
        client = await house.ready()
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await pour(client, b"HELP\r\n" * 10_000, times=10_000)
        assert await house.door.emptied(10)


async def test_waiting_for_the_commit_is_not_silence() -> None:
    async with opened(smtp_timeout=1) as house:
        house.acceptor.gate = asyncio.Event()
        client = await house.ready()
        await client.begin()
        await client.send(MESSAGE + b".\r\n")
        asyncio.get_running_loop().call_later(1.3, house.acceptor.gate.set)
        assert (await client.reply()).startswith("250 2.0.0")


# ---- closing


async def test_a_closing_door_sends_the_idle_away_and_finishes_a_commit() -> None:
    async with opened() as house:
        house.acceptor.gate = asyncio.Event()
        idle, busy = await house.ready(), await house.ready()
        await busy.begin()
        await busy.send(MESSAGE + b".\r\n")
        await house.acceptor.asked.wait()
        closing = asyncio.ensure_future(house.door.close(5))
        assert (await idle.reply()).startswith("421 4.3.2")
        house.acceptor.gate.set()
        assert (await busy.reply()).startswith("250 2.0.0")
        assert (await busy.reply()).startswith("421 4.3.2")
        await closing
        with pytest.raises(ConnectionError):
            await house.client()


async def test_a_closing_door_takes_a_message_that_is_under_way() -> None:
    async with opened() as house:
        client = await house.ready()
        await client.begin()
        await client.send(MESSAGE)
        closing = asyncio.ensure_future(house.door.close(5))
        await asyncio.sleep(0)
        assert (await client.ask(b".")).startswith("250 2.0.0")
        await closing


async def test_a_closing_door_does_not_wait_for_ever() -> None:
    async with opened() as house:
        client = await house.ready()
        await client.begin()
        await house.door.close(0.1)
        assert (await client.reply()).startswith("421 4.3.2")
        assert not house.door._inside


async def test_a_closing_door_sends_nobody_away_whose_message_is_being_stored() -> None:
    """It would come again, though it is stored."""
    async with opened() as house:
        house.acceptor.gate = asyncio.Event()
        client = await house.ready()
        await client.begin()
        await client.send(MESSAGE + b".\r\n")
        await house.acceptor.asked.wait()
        await house.door.close(0.05)
        house.acceptor.gate.set()
        await house.door.part()
        assert (await client.reply()).startswith("250 2.0.0")
        assert not house.door._inside


# ---- greed


async def test_commands_that_are_refused_for_ever_end_the_session() -> None:
    async with opened(max_recipients=10) as house:
        client = await house.ready()
        await client.send(b"RCPT TO:<b@two.example>\r\n" * 200)
        replies = [await client.reply() for _ in range(111)]
        assert {reply[:9] for reply in replies[:110]} == {"503 5.5.1"}
        assert replies[110].startswith("421 4.7.0")
        assert await client.closed()


@pytest.mark.parametrize("line", [b"RCPT TO:<b@two.example>", b"AUTH PLAIN AAAA", b"DATA"])
async def test_a_stranger_is_refused_so_often_and_no_more(line: bytes) -> None:
    async with opened(trusted_networks="192.0.2.0/24") as house:
        client = await house.ready()
        await client.send((line + b"\r\n") * 100)
        replies = await rest(client)
    assert len(replies) <= 20
    assert replies[-1].startswith("421 4.7.0")


async def test_a_client_with_much_to_say_lets_others_speak() -> None:
    """All its commands are here at once; still the loop comes round between them."""
    async with opened() as house:
        client = await house.ready()
        rounds = 0

        def another() -> None:
            nonlocal rounds
            rounds += 1
            asyncio.get_running_loop().call_soon(another)

        another()
        await client.send(b"RCPT TO:<b@two.example>\r\n" * 500)
        await client.reply()  # the replies leave together, after the last command
        assert rounds >= 500 // AT_ONCE


async def test_content_that_arrives_from_everywhere_at_once_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.arrivals.MESSAGES", 1)
    async with opened(max_message_size=100_000) as house:
        first, second = await house.ready(), await house.ready()
        for client in (first, second):
            await client.begin()
        await first.send(MESSAGE + b"x" * 90_000)
        await until(lambda: house.door.arrivals.held > 90_000)
        await second.send(MESSAGE + b"x" * 90_000)
        assert (await second.reply()).startswith("452 4.3.1")
        assert await second.closed()
        assert (await first.ask(b"\r\n.")).startswith("250 2.0.0")
        assert house.door.arrivals.held == 0


async def test_a_tenant_has_half_of_the_room_that_others_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many connections it has: one that stops in the middle of all its mail keeps nobody else out."""
    monkeypatch.setattr("relay.arrivals.MESSAGES", 1)
    async with opened(max_message_size=100_000) as house:
        house.directory.accounts["b1"] = account("b1", email="b@one.example")
        house.directory.tokens["secret"] = Token()
        greedy, again, other = [await house.ready() for _ in range(3)]
        for client, user in ((greedy, "a1"), (again, "a1"), (other, "b1")):
            assert (await client.ask(f"AUTH PLAIN {sasl(user, 'secret')}")).startswith("235")
            await client.begin()
        await greedy.send(MESSAGE + b"x" * 40_000)
        await until(lambda: house.door.arrivals.held > 40_000)
        await again.send(MESSAGE + b"x" * 20_000)
        assert (await again.reply()).startswith("452 4.3.1")
        assert (await other.ask(PLAIN + b"x" * 20_000 + b"\r\n.")).startswith("250 2.0.0")
        assert (await greedy.ask(b"\r\n.")).startswith("250 2.0.0")
        assert house.door.arrivals.held == 0


async def test_a_client_that_is_gone_before_it_is_looked_at_is_nobodys_fault(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Given a reset right after the connection was made: its address is not known any more."""
    monkeypatch.setattr(
        "asyncio.selector_events._SelectorSocketTransport.get_extra_info",
        lambda self, name, default=None: default,
        raising=False,
    )
    async with opened() as house:
        client = await house.client()
        assert await client.closed()
    assert "broke off" not in caplog.text


def hurry(house: House, **limits: float) -> None:
    """From the next answer on; the client got so far however slow the machine is."""
    house.door.settings = replace(house.door.settings, **limits)  # type: ignore[arg-type]


async def pour(client: Client, chunk: bytes, times: int) -> None:
    """Sends the chunk so many times, or until the server has had enough."""
    with contextlib.suppress(ConnectionError):
        for _ in range(times):
            await client.send(chunk)


async def drip(client: Client) -> None:
    """A byte now and then, until the server has something to say."""

    async def drop_by_drop() -> None:
        while True:
            await client.send(b"x")
            await asyncio.sleep(0.02)

    dripping = asyncio.ensure_future(drop_by_drop())
    heard = asyncio.ensure_future(client.reader._wait_for_data("drip"))  # type: ignore[attr-defined]
    await asyncio.wait((dripping, heard), timeout=10, return_when=asyncio.FIRST_COMPLETED)
    dripping.cancel()


# ---- strangers


async def test_a_client_that_only_keeps_its_place_loses_it() -> None:
    async with opened() as house:
        client = await house.ready()
        said = [await client.ask("NOOP") for _ in range(MOST_IDLE)]
        assert said[-1].startswith("421 4.7.0")
        assert await client.closed()


async def test_messages_keep_a_connection_in_good_standing() -> None:
    async with opened() as house:
        client = await house.ready()
        for _ in range(3):
            assert (await client.submit()).startswith("250")
            for _ in range(MOST_IDLE - 1):
                assert (await client.ask("NOOP")).startswith("250")


async def test_a_stranger_has_a_while_to_log_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.ingress.connection.STRANGER_SECONDS", 0.1)
    async with opened(trusted_networks="10.0.0.0/8") as house:
        client = await house.ready()
        said = "250"
        while said.startswith("250"):
            said = await client.ask("RSET")
        assert said.startswith("421")


async def test_an_address_that_is_not_trusted_has_its_share_of_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.ingress.door.SMALLEST_SHARE", 1)
    async with opened(trusted_networks="10.0.0.0/8", smtp_connections="5") as house:
        first, second = await house.client(), await house.client()
        assert (await first.reply()).startswith("220")
        assert (await second.reply()).startswith("421 4.7.0")
        first.close()
        while not (await (await house.client()).reply()).startswith("220"):
            pass  # its place is not free until the server has seen it leave


async def test_a_trusted_address_may_have_all_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.ingress.door.SMALLEST_SHARE", 1)
    async with opened(smtp_connections="5") as house:
        assert all([(await (await house.client()).reply()).startswith("220") for _ in range(5)])

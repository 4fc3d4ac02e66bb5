"""The port of a fake that is down, or has ended, is nobody else's."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import pytest

from tests.fakes.imap import Mailserver
from tests.fakes.issuer import Issuer
from tests.fakes.receiver import Receiver
from tests.fakes.upstream import Upstream


@pytest.mark.parametrize("make", [Upstream, Mailserver, Receiver, Issuer])
async def test_the_port_of_a_fake_that_is_down_is_its_own(
    make: Callable[[], Upstream | Mailserver | Receiver | Issuer],
) -> None:
    async with make() as fake:
        await fake.stop()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((fake.host, fake.port))
        with socket.socket() as caller:
            assert caller.connect_ex((fake.host, fake.port)) == errno.ECONNREFUSED
        await fake.start()
        with socket.socket() as caller:
            assert caller.connect_ex((fake.host, fake.port)) == 0

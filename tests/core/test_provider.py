"""What upstreams call a message that they took, in the words of many of them."""

from __future__ import annotations

import pytest

from relay.core import provider

REPLIES = [
    *((sample, name) for _, sample, name in provider.NAMES),
    ("Message queued for delivery as 01a1f89ee17 (2026-11-20T11:02:04.402Z)", "01a1f89ee17"),
    ("Requested mail action okay, completed: id=1MKsaz-1wevcp3BHR-00M7kH", "1MKsaz-1wevcp3BHR-00M7kH"),
    ("OK <AM9PR04MB1@eurprd04.prod.outlook.com> [Hostname=AM9PR04MB1]", "AM9PR04MB1@eurprd04.prod.outlook.com"),
    ("Ok: queued on mail-3.yandex.net 1682952938-btNFgWJPMCg0-4g", "1682952938-btNFgWJPMCg0-4g"),
    ("OK: queued as <202611@smtp-relay.example>", "202611@smtp-relay.example"),
    ("Ok: queued as AbcDE1234.", "AbcDE1234"),
    ("queued as FADEBC", "FADEBC"),
    ("Queued as soon as possible", None),
    ("Queued mail for delivery", None),
    ("Message accepted for delivery", None),
    ("OK: Message accepted for delivery", None),
    ("ok dirdel", None),
    ("OK", None),
    ("", None),
]


@pytest.mark.parametrize(("reply", "name"), REPLIES)
def test_an_upstreams_name_of_a_message(reply: str, name: str | None) -> None:
    assert provider.message_id(reply) == name


def test_a_message_is_called_by_its_own_id_and_by_the_one_that_its_provider_told() -> None:
    outlook = "OK <AM0@AM0.prod.outlook.com> [Hostname=AM0.prod.outlook.com]"
    told = [outlook, outlook, "Ok: queued as 4F2D41A0B3", "ok <somebody@there.example>", ""]
    assert provider.message_ids("<m@here.example>", told) == ("<m@here.example>", "<AM0@AM0.prod.outlook.com>")

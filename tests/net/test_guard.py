"""The resolved address is judged, not the name."""

import asyncio
import socket
import threading
from ipaddress import ip_network
from typing import Any

import pytest

from relay.net.guard import Forbidden, resolve
from tests.fakes.resolver import answering


async def addresses_of(host: str, *answers: str, allowed: str = "") -> list[str]:
    networks = [ip_network(allowed)] if allowed else []
    return [target.address for target in await resolve(host, 25, networks, resolver=answering(*answers))]


async def test_a_public_host_is_resolved() -> None:
    assert await addresses_of("mx.example.com", "8.8.8.8", "2606:4700::1") == ["8.8.8.8", "2606:4700::1"]


async def test_a_name_that_points_inside_is_refused() -> None:
    with pytest.raises(Forbidden) as refused:
        await addresses_of("mx.example.com", "169.254.169.254")
    assert str(refused.value) == "mx.example.com is 169.254.169.254, refused: cloud metadata address"


async def test_only_the_permitted_addresses_of_a_name_are_dialled() -> None:
    assert await addresses_of("mx.example.com", "10.0.0.1", "8.8.8.8", "::ffff:127.0.0.1", "fe80::1%eth0") == [
        "8.8.8.8"
    ]


async def test_an_inner_address_inside_the_allowed_networks_is_dialled() -> None:
    assert await addresses_of("mx.example.com", "10.0.0.1", allowed="10.0.0.0/8") == ["10.0.0.1"]


async def test_the_same_address_is_dialled_once() -> None:
    assert await addresses_of("mx.example.com", "8.8.8.8", "8.8.8.8") == ["8.8.8.8"]


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "::1", "[::1]", "0"])
async def test_a_spelled_out_inner_address_is_refused_without_asking_anybody(host: str) -> None:
    with pytest.raises(Forbidden):
        await addresses_of(host, "8.8.8.8")


async def test_a_spelled_out_address_needs_no_resolver() -> None:
    assert await addresses_of("8.8.4.4") == ["8.8.4.4"]


async def test_a_name_without_address_is_said_to_have_none() -> None:
    with pytest.raises(socket.gaierror):
        await addresses_of("mx.example.com")


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "mx..example.com"])
async def test_a_name_that_is_none_is_an_error_of_the_name(host: str) -> None:
    with pytest.raises(socket.gaierror):
        await resolve(host, 25, [])


async def test_names_that_hang_keep_no_others_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ever so many names of one tenant, whose name server is silent; then a name of somebody else."""
    answered = threading.Event()

    def look_up(host: str, port: int, **_: Any) -> Any:
        if host.endswith("hang.example"):
            answered.wait(20)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("8.8.8.8", port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    late = [asyncio.create_task(resolve(f"{n}.hang.example", 25, ())) for n in range(50)]
    await asyncio.sleep(0)
    found = asyncio.create_task(resolve("mx.example", 25, ()))
    done, _ = await asyncio.wait({found, *late}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    answered.set()
    assert done == {found}
    await asyncio.gather(*late)

"""How much of an opener's address is kept."""

from __future__ import annotations

import pytest

from relay.core.footprint import kept


@pytest.mark.parametrize(
    ("address", "how", "expected"),
    [
        ("203.0.113.77", "whole", "203.0.113.77"),
        ("2001:DB8:7:1::5", "whole", "2001:db8:7:1::5"),
        ("::ffff:203.0.113.77", "whole", "203.0.113.77"),
        ("fe80::1%eth0", "whole", "fe80::1"),
        ("203.0.113.77", "truncated", "203.0.113.0"),
        ("2001:db8:7:1:2:3:4:5", "truncated", "2001:db8:7::"),
        ("::ffff:203.0.113.77", "truncated", "203.0.113.0"),
        ("203.0.113.77", "none", None),
        ("", "whole", None),
        ("unknown", "truncated", None),
        ("203.0.113.77, 10.0.0.1", "whole", None),
    ],
)
def test_what_is_kept(address: str, how: str, expected: str | None) -> None:
    assert kept(address, how) == expected


def test_another_way_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="whole, truncated or none, not 'half'"):
        kept("203.0.113.77", "half")

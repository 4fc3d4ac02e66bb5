"""Where the Sent copy belongs: as somebody set it, as the server flags it, as it is named, or as it is made."""

from __future__ import annotations

import pytest

from relay.core.folders import Folder
from relay.core.sentfolders import lay_out


def folders(*paths: str, delimiter: str = "/", **flags: str) -> list[Folder]:
    return [
        Folder(path, delimiter, frozenset({f"\\{flags[path]}"} if path in flags else ()))
        for path in dict.fromkeys((*paths, *flags))
    ]


def test_uses_are_found_by_flag_and_by_name() -> None:
    layout = lay_out(folders("INBOX", "Papierkorb", Raus="sent", Alles="all"))
    assert (layout.sent, layout.all, layout.trash) == ("Raus", "Alles", "Papierkorb")


@pytest.mark.parametrize(
    ("wanted", "home"),
    [
        ("", "INBOX.Sent"),
        ("INBOX.Shop.Out", "INBOX.Shop.Out"),
        ("INBOX/Shop/Out", "INBOX.Shop.Out"),
        ("Shop/Out", "INBOX.Shop.Out"),
        ("Shop.Out", "INBOX.Shop.Out"),
        ("Elsewhere", None),
    ],
)
def test_a_folder_is_found_however_it_is_written(wanted: str, home: str | None) -> None:
    layout = lay_out(folders("INBOX", "INBOX.Sent", "INBOX.Shop", "INBOX.Shop.Out", delimiter="."))
    assert layout.home(wanted) == home


def test_a_folder_that_cannot_be_selected_is_none() -> None:
    layout = lay_out([Folder("INBOX", "/"), Folder("Sent", "/", frozenset({"\\noselect"}))])
    assert (layout.sent, layout.home("Sent")) == (None, None)


@pytest.mark.parametrize(
    ("paths", "delimiter", "wanted", "new"),
    [
        (("INBOX", "Archive"), "/", "", ("Sent", "INBOX/Sent")),
        (("INBOX", "INBOX.Archive"), ".", "", ("INBOX.Sent",)),
        (("INBOX",), ".", "", ("Sent", "INBOX.Sent")),
        (("INBOX",), "", "", ("Sent",)),
        (("INBOX", "Archive"), "/", "Shop/Out", ("Shop/Out",)),
        (("INBOX", "INBOX.Archive"), ".", "Shop/Out", ("INBOX.Shop.Out", "Shop.Out", "Shop/Out")),
    ],
)
def test_what_is_made_where_there_is_none(
    paths: tuple[str, ...], delimiter: str, wanted: str, new: tuple[str, ...]
) -> None:
    assert lay_out(folders(*paths, delimiter=delimiter)).new(wanted) == new

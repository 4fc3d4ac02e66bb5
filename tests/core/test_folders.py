"""The folders of a mailbox are known by what the server says of them, else by their names."""

from __future__ import annotations

import pytest

from relay.core.folders import NAMES, Folder, Found, Use, special


def folder(path: str, *flags: str, delimiter: str = "/", personal: bool = True) -> Folder:
    return Folder(path, delimiter, frozenset(flags), personal)


def paths(*folders: Folder) -> dict[str, str]:
    return {str(use): found.folder.path for use, found in special(folders).items()}


def test_flags_say_what_names_do_not() -> None:
    gmail = [
        folder("INBOX", "\\hasnochildren"),
        folder("[Gmail]", "\\noselect", "\\haschildren"),
        folder("[Gmail]/Alle Nachrichten", "\\all"),
        folder("[Gmail]/Gesendet", "\\sent"),
        folder("[Gmail]/Müll", "\\trash"),
        folder("[Gmail]/Krempel", "\\junk"),
        folder("[Gmail]/Später", "\\drafts"),
    ]
    assert paths(*gmail) == {
        "sent": "[Gmail]/Gesendet",
        "trash": "[Gmail]/Müll",
        "drafts": "[Gmail]/Später",
        "junk": "[Gmail]/Krempel",
        "all": "[Gmail]/Alle Nachrichten",
    }


def test_a_flag_counts_more_than_a_name() -> None:
    assert special([folder("Sent"), folder("Ablage", "\\sent")])[Use.SENT] == Found(folder("Ablage", "\\sent"), True)


def test_of_two_flagged_the_one_whose_name_agrees_is_meant() -> None:
    assert paths(folder("Archive", "\\sent"), folder("Sent Items", "\\sent")) == {"sent": "Sent Items"}


def test_of_two_flagged_the_one_nearer_to_the_root_is_meant() -> None:
    assert paths(folder("a/b/Kram", "\\sent"), folder("Kram", "\\sent")) == {"sent": "Kram"}


def test_a_flag_on_a_folder_that_holds_no_mail_is_not_believed() -> None:
    assert paths(folder("Post", "\\sent", "\\noselect"), folder("Sent")) == {"sent": "Sent"}
    assert paths(folder("Post", "\\trash", "\\nonexistent")) == {}


def test_a_folder_has_one_use() -> None:
    assert paths(folder("Trash", "\\trash", "\\junk")) == {"trash": "Trash"}


def test_where_flag_and_name_differ_the_folder_comes_last_and_its_name_counts() -> None:
    assert paths(folder("Sent", "\\trash")) == {"sent": "Sent"}
    assert paths(folder("Sent", "\\trash"), folder("Gesendet")) == {"sent": "Gesendet", "trash": "Sent"}
    swapped = [folder("Drafts", "\\sent", "\\trash"), folder("Sent", "\\junk"), folder("Trash", "\\drafts")]
    assert paths(*swapped) == {"sent": "Sent", "drafts": "Drafts", "trash": "Trash"}
    assert paths(folder("Customers/Old/Sent", "\\trash")) == {"trash": "Customers/Old/Sent"}


def test_the_inbox_is_never_meant() -> None:
    assert paths(folder("INBOX", "\\sent", "\\all")) == {}


def test_what_others_share_is_not_ours() -> None:
    assert paths(folder("Other/ann/Sent", "\\sent", personal=False), folder("Sent", personal=False)) == {}


@pytest.mark.parametrize("path", ["Sent", "INBOX.Sent", "[Gmail].Sent", "SENT", "INBOX.Sent_Items", "Mail.Sent"])
def test_names_count_at_the_root_below_the_inbox_and_one_deeper(path: str) -> None:
    assert paths(folder(path, delimiter=".")) == {"sent": path}


@pytest.mark.parametrize("path", ["Customers.Old.Sent", "INBOX.a.b.Sent", "Sent invoices", "Unsent"])
def test_other_names_do_not_count(path: str) -> None:
    assert paths(folder(path, delimiter=".")) == {}


def test_the_name_nearest_to_the_root_is_meant_then_the_likeliest() -> None:
    assert paths(folder("Work/Sent"), folder("Gesendet")) == {"sent": "Gesendet"}
    assert paths(folder("Gesendet"), folder("Sent")) == {"sent": "Sent"}


def test_a_name_is_the_same_however_its_letters_are_put_together() -> None:
    assert paths(folder("E\u0301le\u0301ments envoye\u0301s")) == {"sent": "E\u0301le\u0301ments envoye\u0301s"}


def test_a_mailbox_without_a_tree_has_folders_too() -> None:
    assert paths(Folder("Trash")) == {"trash": "Trash"}


@pytest.mark.parametrize(("use", "name"), [(use, name) for use, names in NAMES.items() for name in names])
def test_every_name_is_known_for_one_use(use: Use, name: str) -> None:
    assert paths(folder(name)) == {str(use): name}


def test_no_name_stands_for_two_uses() -> None:
    known = [name.casefold() for names in NAMES.values() for name in names]
    assert sorted(known) == sorted(set(known))


def test_folders_are_not_compared_with_each_other() -> None:
    """Of sixty thousand that a server flags wrongly, each was looked for among all the others: minutes."""
    compared = 0

    class Counted(Folder):
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return super().__eq__(other)

        __hash__ = Folder.__hash__

    special([Counted(f"{number}/Trash", "/", frozenset({"\\sent"})) for number in range(300)])
    assert compared <= 300

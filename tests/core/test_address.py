"""One address is judged strictly, many are read tolerantly, and what we spell any reader gets back."""

import time
from email.header import decode_header, make_header
from email.utils import parseaddr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.address import Mailbox, ascii_domain, envelope, is_ascii, parse_list, spellings
from relay.core.errors import Refused

GOOD = [
    ("ada@example.com", "ada@example.com"),
    ("Ada.Lovelace+x@Example.COM", "Ada.Lovelace+x@example.com"),
    ('"Ada Lovelace"@example.com', '"Ada Lovelace"@example.com'),
    ('"a@b"@example.com', '"a@b"@example.com'),
    ("o'brien@example.co.uk", "o'brien@example.co.uk"),
    ("a..b.@docomo.example", "a..b.@docomo.example"),  # carriers gave such addresses out
    ("root@localhost", "root@localhost"),
    ("ada@[192.0.2.1]", "ada@[192.0.2.1]"),
    ("ada@[IPv6:2001:DB8::1]", "ada@[IPv6:2001:db8::1]"),
    ("jürgen@exämple.de", "jürgen@exämple.de"),
    ("ada@STRASSE.Straße.de", "ada@strasse.straße.de"),
    ("ada@XN--EXMPLE-CUA.com", "ada@xn--exmple-cua.com"),
    ("用户@例子.广告", "用户@例子.广告"),
]
BAD = [
    ("", "empty"),
    ("ada", "name@domain"),
    ("@example.com", "name@domain"),
    ("ada@", "name@domain"),
    ("ada@example.com\r\nRCPT TO:<eve@example.com>", "control"),
    ("ada@example.com>\r\nDATA", "control"),
    ("ada\n@example.com", "control"),
    ("ada\r@example.com", "control"),
    ("ada\0@example.com", "control"),
    ("ada\x7f@example.com", "control"),
    ("ada\x85@example.com", "control"),
    ("ada\u2028@example.com", "control"),
    ("ada\u2029@example.com", "control"),
    ('"ada\r\n"@example.com', "control"),
    ("ada\ud800@example.com", "surrogate"),
    ("ada lovelace@example.com", "blank"),
    ("ada@exam ple.com", "blank"),
    ("ada@example.com ", "blank"),
    (" ada@example.com", "blank"),
    ("ada\u3000@example.com", "blank"),
    ("ada@example.com>", "domain"),
    ("<ada@example.com", "quotes"),
    ("a,b@example.com", "quotes"),
    ("a<b>@example.com", "quotes"),
    ('"a<b"@example.com', "< or >"),  # quotes would allow it, and no upstream could be told
    ('"a>b"@example.com', "< or >"),
    ("a@b@example.com", "quotes"),
    ("@relay.example,@other.example:ada@example.com", "source route"),
    ("ada@example..com", "domain"),
    ("ada@.example.com", "domain"),
    ("ada@example.com.", "domain"),
    ("ada@-example.com", "domain"),
    ("ada@example-.com", "domain"),
    ("ada@exam!ple.com", "domain"),
    ("ada@192.0.2.1", "brackets"),
    ("ada@[192.0.2.300]", "IP address"),
    ("ada@[192.0.2.1", "IP address"),
    ("ada@[IPv6:xyz]", "IP address"),
    ("ada@" + "a" * 64 + ".com", "domain"),
    ("ada@" + "a." * 130 + "com", "domain longer"),
    ("a" * 65 + "@example.com", "64 bytes"),
    ("ü" * 33 + "@example.com", "64 bytes"),
    ("a" * 60 + "@" + "b" * 60 + "." + "c" * 60 + "." + "d" * 60 + "." + "e" * 20 + ".com", "254 bytes"),
]


@pytest.mark.parametrize(("text", "expected"), GOOD)
def test_a_good_address_is_kept_but_for_the_case_of_its_domain(text, expected):
    assert envelope(text) == expected


@pytest.mark.parametrize(("text", "fault"), BAD)
def test_a_bad_address_is_refused_with_its_fault_named(text, fault):
    with pytest.raises(Refused) as caught:
        envelope(text, "to[0].address")

    assert fault in caught.value.message
    assert caught.value.smtp == "553 5.1.3"
    assert caught.value.key == "to[0].address"


@given(st.text(max_size=80))
def test_what_is_accepted_can_end_no_command_and_stays_the_same(text):
    try:
        said = accepted = envelope(text)
        assert envelope(accepted) == accepted
    except Refused as refused:
        said = refused.reply()
    assert not set(said) & set("\r\n\0\u2028\u2029")
    assert said.encode().decode() == said


def test_a_domain_beyond_ascii_becomes_a_labels_of_idna_2008():
    assert ascii_domain("ada@straße.de") == "ada@xn--strae-oqa.de"
    assert ascii_domain("ada@example.com") == "ada@example.com"


@pytest.mark.parametrize(
    ("address", "other"),
    [
        ("ada@straße.de", "ada@xn--strae-oqa.de"),
        ("ada@XN--STRAE-OQA.de", "ada@straße.de"),
        ("ada@example.com", None),
        ("adä@example.com", None),
        ("ada@xn--.com", None),
        ("ada@xn--" + "a" * 300, None),
        ("\ud800@\ud800", None),
        ("", None),
    ],
)
def test_a_domain_is_spelt_in_both_of_its_forms(address, other):
    found = spellings(address)
    assert found[0] == address
    assert other in found if other else len(found) == 1


def test_only_ascii_is_ascii():
    assert is_ascii("ada@example.com")
    assert not is_ascii("adä@example.com")


LISTS = [
    ("ada@example.com", [("", "ada@example.com")]),
    ("Ada Lovelace <ada@example.com>", [("Ada Lovelace", "ada@example.com")]),
    (
        '"Lovelace, Ada" <ada@example.com>, bob@example.com',
        [("Lovelace, Ada", "ada@example.com"), ("", "bob@example.com")],
    ),
    ('"A \\"B\\" C" <a@example.com>', [('A "B" C', "a@example.com")]),
    ("ada@example.com (Ada (the first))", [("Ada (the first)", "ada@example.com")]),
    ("=?utf-8?q?J=C3=BCrgen?= <j@example.com>", [("Jürgen", "j@example.com")]),
    ('"=?utf-8?b?SsO8cmdlbg==?=" <j@example.com>', [("Jürgen", "j@example.com")]),
    ("Jürgen <j@example.com>", [("Jürgen", "j@example.com")]),
    ("undisclosed-recipients:;", []),
    ("Team: ada@example.com, bob@example.com;", [("", "ada@example.com"), ("", "bob@example.com")]),
    ('"two words"@example.com', [("", '"two words"@example.com')]),
    ("<@relay.example:ada@example.com>", [("", "ada@example.com")]),
    ("ada@[IPv6:2001:db8::1], bob@example.com", [("", "ada@[IPv6:2001:db8::1]"), ("", "bob@example.com")]),
    ("nobody, <>, Ada <ada@example.com", [("Ada", "ada@example.com")]),
    ("=?utf-8?q?a=0D=0ABcc:_x?= <a@example.com>", [("a Bcc: x", "a@example.com")]),
    ("", []),
]


@pytest.mark.parametrize(("text", "expected"), LISTS)
def test_a_header_of_addresses_is_read(text, expected):
    assert [(box.name, box.address) for box in parse_list(text)] == expected


@pytest.mark.parametrize("text", ["(" * 50_000, '"' * 50_001, "<" * 50_000, "a," * 50_000, "[" * 50_000, "\\" * 50_000])
def test_reading_never_hangs_and_never_raises(text):
    assert all("@" not in box.name for box in parse_list(text))


@pytest.mark.parametrize("piece", ['""', '"a"', "=?", "=?a?q?x", "()", "[]", ",", "a@b,"])
def test_reading_a_megabyte_of_pieces_takes_a_moment(piece):
    text = piece * (1_000_000 // len(piece))
    begun = time.process_time()
    parse_list(text)

    assert time.process_time() - begun < 3


@pytest.mark.parametrize("control", ["\0", "\x07", "\x85", "\u2028"])
def test_what_has_a_control_character_in_it_is_no_address(control):
    assert parse_list(f"Ada <ada{control}@example.com>, bob@example.com") == [Mailbox("", "bob@example.com")]


@given(st.text(max_size=200))
def test_reading_takes_any_text(text):
    for box in parse_list(text):
        assert "@" in box.address
        assert box.name.isprintable() or box.name == " ".join(box.name.split())


NAMES = [
    "",
    "Ada",
    "Lovelace, Ada",
    'Ada "Countess" L\\',
    "Jürgen Müller",
    "=?utf-8?q?x?=",
    "Ada (x)",
    "x" * 200,
    "日本" * 60,
]


@pytest.mark.parametrize("name", NAMES)
def test_a_mailbox_written_is_read_back_by_us_and_by_the_standard_library(name):
    written = Mailbox(name, "ada@example.com").header()

    assert written.isascii()
    assert parse_list(written) == [Mailbox(name, "ada@example.com")]
    assert str(make_header(decode_header(parseaddr(written)[0]))) == name


@given(st.text("ab _.'-1", max_size=12), st.text("ab_.-+@1", max_size=12))
def test_the_usual_mailbox_is_read_as_any_other(name, address):
    assert parse_list(f"{name}<{address}>") == parse_list(f"{name}<{address}>,")


@given(st.text(st.characters(exclude_categories=("C", "Z")), max_size=50).map(lambda text: text.strip()))
def test_any_name_comes_back(name):
    assert parse_list(Mailbox(name, "ada@example.com").header()) == [Mailbox(name, "ada@example.com")]


def test_a_domain_beyond_ascii_is_written_so_that_no_smtputf8_is_needed():
    assert Mailbox("", "ada@exämple.de").header() == "ada@xn--exmple-cua.de"
    assert Mailbox("", "adä@exämple.de").header() == "adä@exämple.de"


@pytest.mark.parametrize(
    ("address", "others"),
    [
        ("jan@there.example", []),
        ("jan@BÜCHER.example", ["jan@xn--bcher-kva.example", "jan@bücher.example"]),
        ("jan@xn--bcher-kva.example", ["jan@bücher.example"]),
        ("jan@xn--.example", []),
        ("jan@\ud800.example", []),
        ("nobody", []),
    ],
)
def test_a_domain_has_a_spelling_for_people_and_one_for_servers(address: str, others: list[str]) -> None:
    assert list(spellings(address)) == [address, *others]

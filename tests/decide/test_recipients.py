"""SES's recipient grammar, as a table, and against a matcher that is too simple to be wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.decide.recipients import InvalidRecipient, Lookup, canonical_address, canonical_entry, matching_entries, split


@pytest.mark.parametrize(("entry", "address", "matches"), [
    ("user@example.com", "user@example.com", True),
    ("user@example.com", "user+label@example.com", True),
    ("user@example.com", "user+@example.com", True),
    ("user@example.com", "user+a+b@example.com", True),
    ("user@example.com", "users@example.com", False),
    ("user@example.com", "user@sub.example.com", False),
    ("user@example.com", "user@example.org", False),
    ("user+label@example.com", "user+label@example.com", True),
    ("user+label@example.com", "user+label+more@example.com", False),
    ("user+label@example.com", "user@example.com", False),
    ("user+label@example.com", "user+other@example.com", False),
    ("+label@example.com", "+label@example.com", True),
    ('""@example.com', "+label@example.com", False),
    ("example.com", "anyone@example.com", True),
    ("example.com", "any+one@example.com", True),
    ("example.com", "anyone@sub.example.com", False),
    ("example.com", "anyone@badexample.com", False),
    ("sub.example.com", "anyone@sub.example.com", True),
    ("sub.example.com", "anyone@example.com", False),
    ("sub.example.com", "anyone@a.sub.example.com", False),
    (".example.com", "anyone@sub.example.com", True),
    (".example.com", "anyone@a.b.c.example.com", True),
    (".example.com", "anyone@example.com", False),
    (".example.com", "anyone@badexample.com", False),
    (".sub.example.com", "anyone@other.example.com", False),
    ("USER@EXAMPLE.COM", "user@example.com", True),
    ("user@example.com", "User+Label@Example.Com", True),
    (".EXAMPLE.com", "user@Sub.Example.COM", True),
    ("user@bücher.example", "user@xn--bcher-kva.example", True),
    ("xn--bcher-kva.example", "user@bücher.example", True),
    (".BÜCHER.example", "user@mail.bücher.example", True),
    ("user@straße.example", "user@xn--strae-oqa.example", True),
    ("müller@example.com", "MÜLLER@example.com", True),
    ("mu\u0308ller@example.com", "m\u00fcller@example.com", True),
    ('"user"@example.com', "user@example.com", True),
    ('"a b"@example.com', '"A B"@example.com', True),
    ("example.com", '"a@b"@example.com', True),
    ("user@[192.0.2.1]", "user@[192.0.2.1]", True),
    ("[192.0.2.1]", "user@[192.0.2.1]", True),
    ("[ipv6:2001:db8::1]", "user@[IPv6:2001:db8::1]", True),
    ("my_host.example.com", "user@my_host.example.com", True),
    ("example.com", "example.com", False),
    ("example.com", "user@", False),
    ("example.com", "user@example..com", False),
])
def test_what_an_entry_matches(entry: str, address: str, matches: bool) -> None:
    assert Lookup([[entry]], []).match(address) == ((0,) if matches else ())


@pytest.mark.parametrize("entry", [
    "", ".", "..", "@", "user@", "@example.com", "user@.example.com", "a b@example.com", "a@example.com,b@example.com",
    "<user@example.com>", "user@exa mple.com", "example..com", ".example..com",
    "-example.com", "example-.com", "*", "*@example.com", "user*@example.com",
    "*.example.com", "a\nb@example.com", "a\x07b@example.com", "user@example.com\n", "example.com.", "a" * 64 + ".example.com",
    ".".join(["a" * 60] * 5), "ex\u200dample.com", "\u2488com", "ü" * 300 + ".example",
])
def test_what_is_no_entry(entry: str) -> None:
    with pytest.raises(InvalidRecipient):
        canonical_entry(entry)


def test_an_empty_list_matches_what_the_identities_cover() -> None:
    lookup = Lookup([[], ["other.example"]], ["example.com", "box@example.org"])
    assert lookup.match("anyone@example.com") == (0,)
    assert lookup.match("anyone@deep.sub.example.com") == (0,)
    assert lookup.match("box@example.org") == (0,)
    assert lookup.match("box+label@example.org") == (0,)
    assert lookup.match("other@example.org") == ()
    assert lookup.match(".box@example.org") == ()
    assert lookup.match("anyone@other.example") == (1,)
    assert Lookup([[]], []).match("anyone@example.com") == ()


@pytest.mark.parametrize(("address", "identity"), [
    ("a@example.com", "example.com"),
    ("a@x.sub.example.com", "sub.example.com"),
    ("box+1@example.org", "box@example.org"),
    ("a@example.org", None),
])
def test_the_most_specific_identity(address: str, identity: str | None) -> None:
    assert Lookup([], ["example.com", "sub.example.com", "box@example.org"]).identity(address) == identity


@pytest.mark.parametrize(("entry", "covered"), [
    ("example.com", True), (".example.com", True), ("a.b.example.com", True), ("user@example.com", True),
    ("user@sub.example.com", True), ("box@example.org", True), ("box+label@example.org", True), ("example.org", False),
    (".example.org", False), ("user@example.org", False), ("com", False), (".com", False), ("badexample.com", False), ("EXAMPLE.COM", True),
])
def test_entries_under_identities(entry: str, covered: bool) -> None:
    assert Lookup([], ["example.com", "box@example.org"]).covers(entry) is covered


def test_several_entries_of_one_list_count_once() -> None:
    assert Lookup([["a@example.com", "A@example.com", "example.com", ".example.com"]], []).match("a+b@example.com") == (0,)


LOCALS = st.sampled_from(["a", "b", "a+x", "b+x", "a+x+y", "+x", "A", "a.b", "ä"])
LABELS = st.sampled_from(["a", "b", "com", "x", "ü", "xn--tda", "B"])
DOMAINS = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
ADDRESSES = st.tuples(LOCALS, DOMAINS).map("@".join)
ENTRIES = st.one_of(ADDRESSES, DOMAINS, DOMAINS.map(lambda domain: f".{domain}"))


def naive(entry: str, address: str) -> bool:
    """The grammar, read out loud."""
    entry, address = (text.lower().replace("ü", "xn--tda") for text in (entry, address))
    local, _, domain = address.rpartition("@")
    if entry.startswith("."):
        return domain.endswith(entry)
    if "@" not in entry:
        return domain == entry
    wanted, _, at = entry.rpartition("@")
    return domain == at and (local == wanted or ("+" not in wanted and local.startswith(f"{wanted}+")))


@given(st.lists(st.lists(ENTRIES, min_size=1, max_size=6), max_size=6), ADDRESSES)
def test_the_lookup_equals_a_search_through_all_entries(lists: list[list[str]], address: str) -> None:
    expected = tuple(position for position, entries in enumerate(lists) if any(naive(entry, address) for entry in entries))
    assert Lookup(lists, []).match(address) == expected


@given(ENTRIES, ADDRESSES)
def test_an_entry_that_identities_cover_matches_only_what_they_cover(entry: str, address: str) -> None:
    lookup = Lookup([[entry]], ["com", "a@x.a", "b.b"])
    if lookup.covers(entry) and lookup.match(address):
        assert lookup.covered(address)


@given(st.text(max_size=40), st.text(alphabet="abß.ü-_[]。xn1 \u200d\u0130", max_size=40))
def test_any_text_is_an_address_or_is_told_not_to_be(local: str, domain: str) -> None:
    address = f"{local}@{domain}"
    try:
        canonical = split(address)
    except InvalidRecipient:
        assert matching_entries(address) == ()
        assert Lookup([["example.com"], []], ["example.com"]).match(address) == ()
    else:
        assert matching_entries(address)[0] == "@".join(canonical)
        assert canonical[1].isascii()
        assert split(f"a@{canonical[1]}")[1] == canonical[1]


@given(ADDRESSES)
def test_one_recipient_in_any_letter_case(address: str) -> None:
    assert canonical_address(address) == canonical_address(address.upper()) == canonical_address(address.replace("ü", "xn--tda"))


def test_a_message_costs_the_same_with_100_000_entries() -> None:
    """By dictionary: as many lookups as the address has forms, however many entries there are."""

    class Counting(dict[str, list[int]]):
        asked = 0

        def get(self, key: str, default: object = None) -> object:  # type: ignore[override]
            self.asked += 1
            return super().get(key, default)  # type: ignore[arg-type]

    lookup = Lookup([[f"user{number}@d{rule}.example.com" for number in range(500)] for rule in range(200)], [])
    lookup._positions = counting = Counting(lookup._positions)
    assert lookup.match("user7+label@d9.example.com") == (9,)
    assert counting.asked == 5


def test_a_quoted_local_part_is_inside_the_identity_of_its_domain() -> None:
    """It was told to be outside: the compared form has lost the quotes, and is no address any more."""
    assert Lookup([], ["example.com"]).covers('"a b"@example.com')
    assert not Lookup([], ["example.org"]).covers('"a b"@example.com')

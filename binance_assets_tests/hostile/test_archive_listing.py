"""Listings of the archive that are not what S3 sends."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.exchange.listing import LISTING_BYTES, ListingPage, read_listing

PREFIX = "data/spot/daily/klines/"
HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'


def listing(*parts: str, head: str = HEAD) -> bytes:
    return f'{head}<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{"".join(parts)}</ListBucketResult>'.encode()


def folder(symbol: str) -> str:
    return f"<CommonPrefixes><Prefix>{PREFIX}{symbol}/</Prefix></CommonPrefixes>"


TRUNCATED = "<IsTruncated>true</IsTruncated>"
BOMB = "<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;'>]>"
EXTERNAL = "<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>"

HOSTILE = {
    "nothing": b"",
    "not XML": b"\x00\x01",
    "a page": b"<html><body>Please sign in.</body></html>",
    "an error": b"<Error><Code>AccessDenied</Code></Error>",
    "cut": listing(folder("BTCUSDT"))[:-30],
    "two documents": listing() + listing(),
    "entities": listing("<Prefix>&b;</Prefix>", head=BOMB),
    "an external entity": listing("<Prefix>&a;</Prefix>", head=EXTERNAL),
    "a document type alone": listing(head="<!DOCTYPE ListBucketResult>"),
    "entities in UTF-16": listing("<Prefix>&b;</Prefix>", head=BOMB).decode().encode("utf-16"),
    "deep": listing("<a>" * 100_000 + "</a>" * 100_000),
    "a long name": listing(folder("A" * 2_000_000)),
    "many names": listing(*[folder(f"A{n}") for n in range(1_001)]),
    "a foreign name": listing("<CommonPrefixes><Prefix>data/futures/um/</Prefix></CommonPrefixes>"),
    "a terminal's escape": listing(f"<Contents><Key>{PREFIX}A&#27;[31m</Key></Contents>"),
    "a name in two lines": listing(f"<Contents><Key>{PREFIX}A\nB</Key></Contents>"),
    "no further marker": listing(folder("BTCUSDT"), TRUNCATED, f"<NextMarker>{PREFIX}A/</NextMarker>"),
    "the same marker": listing(folder("BTCUSDT"), TRUNCATED, f"<NextMarker>{PREFIX}BNBUSDT/</NextMarker>"),
    "an empty page that goes on": listing(TRUNCATED),
    "a marker of another folder": listing(TRUNCATED, "<NextMarker>data/zzz/</NextMarker>"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_listing_is_refused_at_once_and_in_little_memory(name: str) -> None:
    tracemalloc.start()
    before = time.process_time()
    try:
        with pytest.raises(ValueError, match=r"^[^\n]{1,300}$") as error:
            read_listing(HOSTILE[name], PREFIX, f"{PREFIX}BNBUSDT/")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(error.value).isprintable()
    assert time.process_time() - before < 5
    assert peak < 4 * LISTING_BYTES


def test_a_page_of_s3_is_read_with_what_nobody_needs_of_it() -> None:
    extra = "<Owner><ID>1</ID></Owner><ETag>&quot;x&quot;</ETag><Size>91</Size>"
    file = f"{PREFIX}A&amp;B/1d/A.zip"
    body = listing(
        f"<Name>data.binance.vision</Name><Prefix>{PREFIX}</Prefix><Marker></Marker>{TRUNCATED}",
        f"<Contents><Key>{file}</Key>{extra}</Contents>",
        folder("币安人生USDT"),
    )
    names = (f"{PREFIX}A&B/1d/A.zip", f"{PREFIX}币安人生USDT/")
    assert read_listing(body, PREFIX, "") == ListingPage(names, names[-1])
    marked = body.replace(b"</Marker>", f"</Marker><NextMarker>{PREFIX}Z</NextMarker>".encode())
    assert read_listing(marked, PREFIX, "") == ListingPage(names, f"{PREFIX}Z")


tags = st.sampled_from(
    ["ListBucketResult", "Contents", "Key", "CommonPrefixes", "Prefix", "IsTruncated", "NextMarker", "a"]
)
elements = st.recursive(
    st.text(max_size=20).map(lambda text: text.replace("<", "").replace("&", "")),
    lambda inner: st.tuples(tags, st.lists(inner, max_size=3)).map(
        lambda pair: f"<{pair[0]}>{''.join(pair[1])}</{pair[0]}>"
    ),
    max_leaves=8,
)


@given(elements | st.binary(max_size=100), st.sampled_from(["", PREFIX, f"{PREFIX}B"]))
def test_any_bytes_are_a_page_that_leads_further_or_an_error(body: str | bytes, marker: str) -> None:
    try:
        page = read_listing(body if isinstance(body, bytes) else body.encode("utf-8", "replace"), PREFIX, marker)
    except ValueError:
        return
    assert all(name.startswith(PREFIX) for name in page.names)
    assert page.next_marker is None or page.next_marker.encode() > marker.encode()

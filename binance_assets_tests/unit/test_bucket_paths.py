"""Places in buckets: what a setting may name, how they behave as paths, and what messages never show."""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath

import pytest

import binance_assets as ba
from binance_assets.api.arguments import lake_at, path_of
from binance_assets.model.bucket_paths import BucketPath
from binance_assets.model.series import parse_series
from binance_assets.settings import ConfigurationError, read_settings
from binance_assets.storage.lake import Lake

SERIES = parse_series("spot/BTCUSDT/1m")


@pytest.mark.parametrize(
    ("text", "bucket", "key"),
    [
        ("s3://candles/lake", "candles", "lake"),
        ("s3://candles/lake/", "candles", "lake"),
        (" s3://my.candles-1/team=a/lake_2+x ", "my.candles-1", "team=a/lake_2+x"),
    ],
)
def test_a_setting_names_a_place_in_a_bucket(text: str, bucket: str, key: str) -> None:
    lake = read_settings({"BINANCE_ASSETS_LAKE": text}).lake
    assert lake == BucketPath(bucket, key)
    assert str(lake) == f"s3://{bucket}/{key}"


@pytest.mark.parametrize(
    "text",
    [
        "s3://",
        "s3:///lake",
        "s3://candles",
        "s3://candles/",
        "s3:/candles/lake",
        "S3://candles/lake",
        "s3://candles//lake",
        "s3://candles/../lake",
        "s3://candles/la*ke",
        "s3://candles/lake?secret=word",
        "s3://candles:9000/lake",
        "s3://key:secretword@candles/lake",
        "s3://ab/" + "x" * 300,
        "gs://candles/lake",
        "https://candles.s3.amazonaws.com/lake?X-Amz-Signature=secretword",
        "file:///lake",
    ],
)
def test_what_is_no_place_is_refused_in_one_line_without_secrets(text: str) -> None:
    with pytest.raises(ConfigurationError) as by_setting:
        read_settings({"BINANCE_ASSETS_LAKE": text})
    assert "BUCKET/PREFIX" in str(by_setting.value) or "the prefix must be" in str(by_setting.value)
    with pytest.raises(ConfigurationError) as by_argument:
        Lake(text)
    for raised in (by_setting, by_argument):
        assert "\n" not in str(raised.value)
        assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("bucket", "rule"),
    [
        ("ab", "must have 3 to 63 characters"),
        ("a" * 64, "must have 3 to 63 characters"),
        ("-candles", "must begin and end with a letter or digit"),
        ("key:secretword@candles", "letters, digits, and . _ - without a user name or port"),
        ("my candles", "letters, digits, and . _ -"),
    ],
)
def test_a_bucket_is_refused_by_the_rule_that_its_name_breaks(bucket: str, rule: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read_settings({"BINANCE_ASSETS_LAKE": f"s3://{bucket}/lake"})
    assert rule in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("text", ["lake", "/data/lake", "C:\\lake", "C:/lake", "s3"])
def test_a_folder_stays_a_path(text: str) -> None:
    assert read_settings({"BINANCE_ASSETS_LAKE": text}).lake == Path(text)
    assert Lake(Path(text)).root == Path(text)


def test_it_behaves_like_a_path() -> None:
    root = BucketPath("candles", "team/lake")
    path = root / "market=spot" / "2024-01.parquet"
    assert (path.name, path.stem, path.parent) == ("2024-01.parquet", "2024-01", root / "market=spot")
    assert path.relative_to(root) == PurePosixPath("market=spot/2024-01.parquet")
    assert root.with_name("lake.state") == BucketPath("candles", "team/lake.state")
    assert BucketPath("candles", "lake").with_name("lake.state") == BucketPath("candles", "lake.state")
    assert path.absolute() is path
    for other in (BucketPath("other", "team/lake"), Path("team/lake")):
        with pytest.raises(ValueError, match="is not below"):
            path.relative_to(other)


def test_a_lake_in_a_bucket_names_its_files_as_urls() -> None:
    lake = Lake("s3://candles/lake")
    assert lake.uri(SERIES) == "s3://candles/lake/market=spot/symbol=BTCUSDT/interval=1m"
    assert str(lake_at("s3://candles/lake").root) == "s3://candles/lake"


def test_without_obstore_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.exceptions", None)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(ba.LakeError, match=r"needs obstore; install binance-assets\[s3\]$"):
        ba.coverage(lake="s3://candles/lake")


def test_an_export_into_a_bucket_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^s3://candles/exports is not a folder of this machine$"):
        path_of("s3://candles/exports")

"""Credentials do not reach logs, reports, pages or names: many forms, each with what must go and what must stay."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.errors import SourceError
from lib.jobs import RasterJob, Resources
from lib.redact import redacted, redacted_record
from lib.reports import Report

_FORMS = [
    ("https://ann:s3cr3t@host.example/a/b.tif", "s3cr3t", "host.example/a/b.tif"),
    ("/vsicurl/https://ann:s3cr3t@host.example/a.tif: no such file", "s3cr3t", "host.example/a.tif: no such file"),
    ("/vsicurl/ftp://ann:s3/cr@3t@host.example/a.tif", "cr@3t", "host.example/a.tif"),
    ("postgresql+asyncpg://swath:p@ss/w0rd@db:5432/prefect", "w0rd", "db:5432/prefect"),
    ("https://ghp_s3cr3ts3cr3ts3cr3t@github.com/a.git", "s3cr3t", "github.com/a.git"),
    ("https://b.s3.amazonaws.com/T32UQD.tif?X-Amz-Date=1&X-Amz-Signature=deadbeef", "deadbeef", "T32UQD.tif?X-Amz-Date=1"),
    ("https://b.s3.amazonaws.com/a.tif?X-Amz-Credential=s3cr3t%2F2026&X-Amz-Date=1", "s3cr3t", "X-Amz-Date=1"),
    ("https://b.s3.amazonaws.com/a.tif?X-Amz-Security-Token=s3cr3t&X-Amz-Date=2026", "s3cr3t", "X-Amz-Date=2026"),
    ("https://x.blob.core.windows.net/c/a.tif?sv=2024&se=2026&sig=s3cr3t%3D", "s3cr3t", "c/a.tif?sv=2024&se=2026"),
    ("https://storage.googleapis.com/b/a.tif?X-Goog-Signature=s3cr3t&X-Goog-Date=1", "s3cr3t", "X-Goog-Date=1"),
    ("https://c.example/a.tif?Expires=1&Signature=s3cr3t~-&Key-Pair-Id=APK123", "s3cr3t", "Expires=1"),
    ("https://tiles.example/a.tif?token=s3cr3t#frag", "s3cr3t", "a.tif"),
    ("https://tiles.example/a.tif?access_token=s3cr3t&v=1", "s3cr3t", "v=1"),
    ("https://maps.example/wms?key=s3cr3t&layer=a", "s3cr3t", "layer=a"),
    ("/vsicurl?header.Authorization=Bearer%20s3cr3t&url=https%3A%2F%2Fhost%2Fa.tif", "s3cr3t", "url=https%3A%2F%2Fhost%2Fa.tif"),
    ("/vsicurl?url=https%3A%2F%2Fann%3As3cr3t%40host%2Fa.tif", "s3cr3t", "%40host%2Fa.tif"),
    ("/vsicurl?url=https%3A%2F%2Fhost%2Fa.tif%3Fsig%3Ds3cr3t%26v%3D1", "s3cr3t", "%26v%3D1"),
    ("PG:host=db port=5432 dbname=gis user=swath password=s3cr3t tables=parcels", "s3cr3t", "tables=parcels"),
    ("PG:host=db password='s3c r3t' dbname=gis", "r3t", "dbname=gis"),
    ('PG:"host=db password=\'s3c \\\' r3t\' dbname=gis"', "r3t", "dbname=gis"),
    ("PG:dbname=gis password=s3,c;r3t", "r3t", "dbname=gis"),
    ("MYSQL:gis,host=db,user=root,password=s3cr3t,port=3306", "s3cr3t", "port=3306"),
    ("MSSQL:server=db;database=gis;uid=sa;pwd=s3cr3t;tables=a", "s3cr3t", "tables=a"),
    ("OCI:scott/s3cr3t@db:parcels", "s3cr3t", "@db:parcels"),
    ("MongoDBv3:mongodb+srv://ann:s3cr3t@cluster/gis", "s3cr3t", "cluster/gis"),
    ("AWS_SECRET_ACCESS_KEY=s3cr3t/abc+d", "s3cr3t", "AWS_SECRET_ACCESS_KEY="),
    ("AWS_SESSION_TOKEN: not set, AWS_SESSION_TOKEN=s3cr3t", "s3cr3t", "not set"),
    ("export AWS_SECRET_ACCESS_KEY='s3cr3t' GDAL_CACHEMAX=64", "s3cr3t", "GDAL_CACHEMAX=64"),
    ("GDAL_HTTP_USERPWD=ann:s3cr3t", "s3cr3t", "GDAL_HTTP_USERPWD="),
    ("GDAL_HTTP_HEADERS=Authorization: Bearer s3cr3t", "s3cr3t", "GDAL_HTTP_HEADERS"),
    ("AccountName=x;AccountKey=s3cr3t==;EndpointSuffix=core.windows.net", "s3cr3t", "EndpointSuffix=core.windows.net"),
    ("AZURE_STORAGE_SAS_TOKEN=sv=1&sig=s3cr3t", "s3cr3t", "AZURE_STORAGE_SAS_TOKEN="),
    ("Authorization: Basic YW5uOnMzY3IzdA==", "YW5u", "Authorization"),
    ("sent bearer abc.def-1234567", "1234567", "sent bearer"),
    ('{"host": "db", "password": "s3cr3t", "port": 5432}', "s3cr3t", '"port": 5432'),
    ("{'api_key': 's3cr3t', 'layer': 'a'}", "s3cr3t", "'layer': 'a'"),
    ("using key AKIAIOSFODNN7EXAMPLE for bucket b", "AKIAIOSFODNN7EXAMPLE", "for bucket b"),
    ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.s3cr3t-x refused", "s3cr3t", "refused"),
    ("PREFECT_API_KEY=pnu_s3cr3t", "s3cr3t", "PREFECT_API_KEY="),
    ("PREFECT_SERVER_DATABASE_PASSWORD = s3cr3t", "s3cr3t", "PREFECT_SERVER_DATABASE_PASSWORD"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "goes", "stays"), _FORMS)
def test_a_credential_goes_and_the_rest_stays(text: str, goes: str, stays: str) -> None:
    """Of each form the secret is gone, path and other parameters are there, and a second time changes nothing."""
    told = redacted(text)
    assert goes not in told
    assert stays in told
    assert "***" in told
    assert redacted(told) == told


@pytest.mark.parametrize(
    "text",
    [
        "/data/2026/T32UQD.tif: 120.0 MiB of a limit of 256.0 MiB",
        "https://host.example:8443/tiles/a@2x.tif?bbox=1,2,3,4&format=tif",
        "abfss://container@account.dfs.core.windows.net/a.tif",
        "/vsis3/bucket/key/a.tif: HTTP 403",
        "checked: 5 of 5; key a.tif; block 12 = 12; 10:30:00",
        "raise memory_limit_mb to 121 MiB or more: `swath plan` tells what is enough",
        "user@host has no such file: a=b, c: d",
        "basic, 3 of 3 checks passed: structure, counts",
        "the basic verification",
        "/data/asiapacificregions/akiachtundachtzig.tif: eyjafjallajokull.tif.ovr",
    ],
)
def test_what_is_no_credential_stays(text: str) -> None:
    """Paths, hosts, ports, e-mail-like names, settings and prose are as they were."""
    assert redacted(text) == text


@given(st.text(alphabet="abcDEF012%+/=~_-.", min_size=6, max_size=40))
def test_no_form_of_password_survives_a_url(password: str) -> None:
    """Whatever characters a password has (those that end a URL's authority included), none of it is told."""
    told = redacted(f"open https://ann:X{password}X@host.example/a.tif failed")
    assert f"X{password}X" not in told
    assert told.endswith("@host.example/a.tif failed")


def test_markdown_around_a_hidden_value_stays() -> None:
    """A link in backticks that was redacted is redacted again with its page; and what a hint says to write is no credential."""
    assert redacted("`https://***@h/x.tif?sig=***` and more") == "`https://***@h/x.tif?sig=***` and more"
    assert redacted("write postgresql://USER:PASSWORD@HOST/NAME") == "write postgresql://USER:PASSWORD@HOST/NAME"


def test_a_record_is_redacted_whole() -> None:
    """Strings at any depth, and the value of a key that is a secret's name; numbers stay."""
    record = {"a": [{"source": "https://a:b@h/x.tif", "n": 3}], "password": "hunter2", "tokens": 5, "token": ""}
    assert redacted_record(record) == {
        "a": [{"source": "https://***@h/x.tif", "n": 3}], "password": "***", "tokens": 5, "token": "",
    }  # fmt: skip


def test_a_long_text_takes_no_time() -> None:
    """A megabyte of what looks like the beginning of everything is done in linear time."""
    assert len(redacted("a=b&c:d@e/f?" * 80_000)) > 500_000


def test_reports_and_errors_are_redacted() -> None:
    """A job's source, an error's message and hint, a warning: none of them has the secret in `--json`."""
    source = "/vsicurl/https://ann:s3cr3t@host/a.tif?sig=s3cr3t"
    job = RasterJob(source=source, destination="/tmp/b.tif", resources=Resources(limit_bytes=1))
    assert job.source == source
    error = SourceError(f"{source} cannot be opened", hint=f"look at {source}", path=source)
    report = Report.of_error(error, job.model_dump(mode="json"))
    report.warnings.append(f"GDAL says: {source}")
    assert "s3cr3t" not in json.dumps(report.to_record()) + error.message + error.hint + str(report.job)

"""Sizes and durations: MiB at the edges, GDAL's own syntax, texts that people read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.units import MIB, format_bytes, format_seconds, mib, parse_gdal_cachemax, parse_mib, parse_threads

PHYSICAL_BYTES = 16 * 1024 * MIB


@given(st.integers(min_value=0, max_value=2**50))
def test_mib_rounds_up_by_less_than_one(size_bytes: int) -> None:
    """A limit told to a user is enough when typed back, and no more than a MiB too much."""
    assert 0 <= mib(size_bytes) * MIB - size_bytes < MIB


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (96 * MIB + MIB // 4, "96.2 MiB"),
        (1536 * MIB, "1.5 GiB"),
        (3 * 2**40, "3.0 TiB"),
        (-20 * MIB, "-20.0 MiB"),
    ],
)
def test_sizes_read_as_people_write_them(size_bytes: int, text: str) -> None:
    """A size has one decimal and its unit; negative ones (a residual) too."""
    assert format_bytes(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.412, "0.41 s"), (1.0, "1.0 s"), (59.94, "59.9 s"), (60.0, "1 min 00 s"), (245.9, "4 min 05 s")],
)
def test_durations_read_as_people_write_them(seconds: float, text: str) -> None:
    """Below a second two decimals, below a minute one, then minutes and whole seconds."""
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(("text", "value"), [("512", 512), (" 512 ", 512), ("+5", 5), ("-3", -3)])
def test_a_whole_number_is_mib(text: str, value: int) -> None:
    """A plain whole number is taken; whether it may be negative is the setting's business."""
    assert parse_mib(text) == value


@pytest.mark.parametrize(
    ("text", "instead"), [("2GB", "2048"), ("2 gib", "2048"), ("512M", "512"), ("1.5G", "1536"), ("1048576KB", "1024")]
)
def test_a_unit_where_mib_is_expected_says_what_to_write(text: str, instead: str) -> None:
    """`2GB` is refused with the number to write in its place."""
    with pytest.raises(ValueError, match=rf"has a unit: it is a plain number of MiB, write {instead}$"):
        parse_mib(text)


@pytest.mark.parametrize("text", ["", "much", "1.5", "0x10", "1e3", "12 34", "GB"])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match="not a whole number of MiB"):
        parse_mib(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("512", 512 * MIB),
        ("0", 0),
        ("99999", 99999 * MIB),
        ("100000", 100_000),
        ("536870912", 512 * MIB),
        ("64MB", 64 * MIB),
        ("64 mb", 64 * MIB),
        ("64m", 64 * MIB),
        ("1G", 1024 * MIB),
        ("0.5GB", 512 * MIB),
        ("512KB", MIB // 2),
        ("200000B", 200_000),
        ("5%", PHYSICAL_BYTES // 20),
        ("100%", PHYSICAL_BYTES),
    ],
)
def test_cachemax_is_read_as_gdal_reads_it(text: str, size_bytes: int) -> None:
    """A bare number below 100000 is MB and from there on bytes; units and per cent as GDAL has them."""
    assert parse_gdal_cachemax(text, PHYSICAL_BYTES) == size_bytes


@pytest.mark.parametrize("text", ["", "-1", "lots", "101%", "5 %%", "12 TB", "1,5G", "nan"])
def test_a_cachemax_that_gdal_would_not_read_is_refused(text: str) -> None:
    """The error says what to write."""
    with pytest.raises(ValueError, match="write 512"):
        parse_gdal_cachemax(text, PHYSICAL_BYTES)


@pytest.mark.parametrize(("text", "threads"), [("1", 1), ("8", 8), (" 3 ", 3), ("ALL_CPUS", 6), ("all_cpus", 6)])
def test_threads_are_read_as_gdal_reads_them(text: str, threads: int) -> None:
    """A number from 1 on, or ALL_CPUS for the host's cores."""
    assert parse_threads(text, 6) == threads


@pytest.mark.parametrize("text", ["0", "-2", "1.5", "", "many", "ALL"])
def test_no_threads_are_refused(text: str) -> None:
    """Zero threads do no work."""
    with pytest.raises(ValueError, match="write a whole number from 1 on, or ALL_CPUS"):
        parse_threads(text, 6)

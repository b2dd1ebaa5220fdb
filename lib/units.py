"""Bytes in, bytes out: MiB, GDAL's own syntax, and sizes as people read them.

Inside swath a size is an `int` of bytes in a name that ends in `_bytes`. MiB (2**20 bytes) appears only in
settings, parameters and texts. GDAL's rules: https://gdal.org/user/configoptions.html#GDAL_CACHEMAX.
"""

import re
from urllib.parse import unquote

KIB = 1024
MIB = 1024 * 1024

_SUFFIXES = {"": 1, "B": 1, "KB": KIB, "K": KIB, "MB": MIB, "M": MIB, "GB": 1024 * MIB, "G": 1024 * MIB}
# GDAL reads a bare GDAL_CACHEMAX below this as megabytes, from it on as bytes.
_GDAL_BYTES_FROM = 100_000


def file_label(source: str) -> str:
    """A source's base name, for `ps` and messages: no folders, no URLs, no query strings (a path has none)."""
    path = source
    if source.startswith("/vsicurl?"):  # options, and the URL among them, as a query
        path = unquote(next((each[4:] for each in source.split("?", 1)[1].split("&") if each.startswith("url=")), ""))
    path = path.split("?", maxsplit=1)[0] if "://" in path else path
    return path.rstrip("/").rpartition("/")[2] or "source"


def mib(size_bytes: int) -> int:
    """Bytes as whole MiB, rounded up: a limit told to a user must be enough when typed back."""
    return -(-size_bytes // MIB)


def format_bytes(size_bytes: int | None) -> str:
    """A size as people read it, with its unit: `"96.3 MiB"`, `"512 B"`, `"1.2 GiB"`; `"-"` where there is none."""
    if size_bytes is None:
        return "-"
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < KIB:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= KIB
    return f"{size:.1f} TiB"


def format_seconds(seconds: float) -> str:
    """A duration as people read it: `"0.41 s"`, `"12.3 s"`, `"4 min 05 s"`."""
    minute = 60
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < minute:
        return f"{seconds:.1f} s"
    return f"{int(seconds // minute)} min {int(seconds % minute):02d} s"


def parse_mib(text: str) -> int:
    """A whole number of MiB from text.

    Raises:
        ValueError: with what to write instead, where a unit or a fraction stands.
    """
    stripped = text.strip()
    if re.fullmatch(r"[+-]?\d+", stripped):
        return int(stripped)
    sized = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg])(?:i?b)?", stripped, re.IGNORECASE)
    if sized:
        whole = round(float(sized[1]) * _SUFFIXES[sized[2].upper()] / MIB)
        raise ValueError(f"{text!r} has a unit: it is a plain number of MiB, write {whole}")
    raise ValueError(f"{text!r} is not a whole number of MiB")


def parse_gdal_cachemax(text: str, physical_bytes: int) -> int:
    """GDAL_CACHEMAX in GDAL's own syntax, as bytes.

    A bare number below 100000 is megabytes, from there on bytes; `KB`, `MB`, `GB` are taken as such; `5%` is a
    share of physical memory.

    Raises:
        ValueError: where GDAL would not read it either.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%|[kmg]?b?)\s*", text, re.IGNORECASE)
    if not match or (match[2] == "%" and float(match[1]) > 100):  # noqa: PLR2004 - per cent
        raise ValueError(f"{text!r} is not a cache size: write 512 (MB), 512MB, 5% or bytes from 100000 on")
    number, unit = float(match[1]), match[2].upper()
    if unit == "%":
        return int(number / 100 * physical_bytes)
    if unit:
        return int(number * _SUFFIXES[unit])
    return int(number) if number >= _GDAL_BYTES_FROM else int(number * MIB)


def parse_threads(text: str, cores: int) -> int:
    """A number of threads in GDAL's own syntax: a whole number from 1 on, or `ALL_CPUS`.

    Raises:
        ValueError: for anything else.
    """
    if text.strip().upper() == "ALL_CPUS":
        return cores
    if re.fullmatch(r"\s*\d+\s*", text) and int(text) >= 1:
        return int(text)
    raise ValueError(f"{text!r} is not a number of threads: write a whole number from 1 on, or ALL_CPUS")

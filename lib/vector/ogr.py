"""The one door to OGR: pyogrio without pandas, its options, its warnings, and what its errors mean.

`import pyogrio` pulls in geopandas and pandas where they are installed, 40 MiB that no Arrow batch needs; in the capped child,
and only there, they are hidden from it while it is imported (a user's function may still import them afterwards).
"""

import functools
import importlib.abc
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from lib.diagnosis import DAMAGED_HINT, FULL, FULL_HINT, diagnose, one_line, speaks_of_damage
from lib.errors import DataError, JobFailed, MemoryExceeded, OutputError, SwathError
from lib.paths import DESCRIPTORS, for_gdal, is_local, without_escapes

_HIDDEN = ("geopandas", "pandas", "pyproj", "shapely")
# Sources are only read: no statistics, locks or templates beside them.
# A CSV's line beyond 10 MB would end the layer without an error.
# A GeoJSON's feature beyond 200 MB would be refused, what was written here among them.
# A GML is read layer by layer, whatever a .gfs beside it says: in the other modes features between those of others are skipped.
_ALWAYS = {
    "GDAL_PAM_ENABLED": "NO",
    "OGR_CSV_MAX_LINE_SIZE": "-1",
    "OGR_GEOJSON_MAX_OBJ_SIZE": "0",
    "GML_READ_MODE": "STANDARD",
}
_SHAPEFILE = (".shp", ".shx", ".dbf")
_SQLITE_MAGIC = b"SQLite format 3\x00"
_APPLICATION, _GEOPACKAGES = (
    68,
    (b"GPKG", b"GP10", b"GP11"),
)  # the application id in its header (sqlite.org/fileformat.html)
_EXTENSION, _WKB_EXTENSIONS = b"ARROW:extension:name", (b"ogc.wkb", b"geoarrow.wkb")
_OF_2GB = re.compile("2GB file size limit|maximum file size of|to .shp file: Success")


class _Hider(importlib.abc.MetaPathFinder):
    """Makes the hidden packages look as if they were not installed."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        """Refuse the hidden; leave the rest to the other finders."""
        del path, target
        if fullname.partition(".")[0] in _HIDDEN:
            raise ModuleNotFoundError(f"{fullname} is hidden from pyogrio in the capped child", name=fullname)


def _is_child() -> bool:
    """True in the capped child, by its command line `-m lib.memory.child`."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return getattr(spec, "name", "") == "lib.memory.child"


def _import_without_pandas() -> None:
    """Import pyogrio with geopandas and pandas hidden, unless something has them already."""
    if any(name in sys.modules for name in (*_HIDDEN, "pyogrio")):
        return
    hider = _Hider()
    sys.meta_path.insert(0, hider)
    try:
        import pyarrow as pa
        import pyogrio.raw  # noqa: F401

        pa.array([0])  # Arrow looks for pandas once, at its first list or scalar (not at NumPy's arrays): 65 MiB
    finally:
        sys.meta_path.remove(hider)


if _is_child():
    _import_without_pandas()

import pyarrow as pa  # noqa: E402 - only now, without pandas
import pyarrow._compute  # noqa: E402 - amid the work it would be three thousand traces
import pyarrow.vendored.version  # noqa: E402 - Arrow's look for pandas imports it at the first reading, amid the work
import pyogrio  # noqa: E402 - only now, without pandas
import pyogrio.core  # noqa: E402
import pyogrio.raw  # noqa: E402

from lib.vector.encoding import ogr_name  # noqa: E402 - it imports Arrow
from lib.vector.names import field_names, geometry_column  # noqa: E402
from lib.vector.row_checks import Found, RowChecks  # noqa: E402
from lib.vector.warned import OUR_OPTION, in_our_words  # noqa: E402


class Literal(str):
    """A name that is GDAL's: pyogrio takes it as it is, where it would split another at `!`, `;` and `?`."""

    __slots__ = ()


def _unless_literal(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(parse)
    def parsed(path: Any) -> Any:
        return str.__str__(path) if isinstance(path, Literal) else parse(path)

    return parsed


# pyogrio has no way to be given a name that it does not parse. What a user's function gives it is parsed as ever.
for _module, _name in (
    (pyogrio.core, "get_vsi_path_or_buffer"),
    (pyogrio.raw, "get_vsi_path_or_buffer"),
    (pyogrio.raw, "vsi_path"),
):
    setattr(_module, _name, _unless_literal(getattr(_module, _name)))


def literal(path: str | Path) -> Literal:
    """The name of a local file, as pyogrio takes it literally, to read or to create it."""
    return Literal(for_gdal(path))


@contextmanager
def configured(**options: str | None) -> Iterator[None]:
    """GDAL configuration options for a while; the previous ones come back."""
    wanted = _ALWAYS | options
    before = {name: pyogrio.get_gdal_config_option(name) for name in wanted}
    pyogrio.set_gdal_config_options(wanted)
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({name: _as_text(value) for name, value in before.items()})


def reading(driver: str, batch_bytes: int) -> dict[str, str | None]:
    """Configuration for reading batches of at most so many bytes, as far as the driver keeps that.

    One reading thread in a GeoPackage: a second one holds batches of its own and was no faster (1.29 against 1.27 s for a million
    parcels). OGR holds a GeoPackage's batches to a size in bytes; on FlatGeobuf that limit loses rows without an error.
    """
    limit = str(batch_bytes) if driver == "GPKG" else None
    return {"OGR_GPKG_NUM_THREADS": "1", "OGR_ARROW_MEM_LIMIT": limit}


def _as_text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "YES" if value else "NO"
    return None if value is None else str(value)


def _open_options(source: str, encoding: str | None = None) -> dict[str, str]:
    """Open options that keep GDAL from writing beside the source, and say how a Shapefile's text is encoded.

    A GeoPackage is opened as immutable, which leaves no -wal, -shm or lock; not where another program's -wal and -shm are there:
    then they must be read with it. GML's .gfs template is not written.
    """
    path = Path(source)
    if path.suffix.lower() in (".gml", ".xml", ".gz") or _start(path).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return {"WRITE_GFS": "NO"}
    if _start(path)[_APPLICATION:] in _GEOPACKAGES and is_immutable(path):
        return {"IMMUTABLE": "YES"}
    if encoding and path.suffix.lower() in _SHAPEFILE:
        return {"ENCODING": ogr_name(encoding)}
    return {}


@contextmanager
def opening(source: str, encoding: str | None = None) -> Iterator[tuple[str, dict[str, str]]]:
    """The name and the open options for a source, a Shapefile's `encoding` among them.

    In what is raised meanwhile the source has its own name again.
    """
    options = _open_options(source, encoding)
    if not is_local(source):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", f".*{OUR_OPTION.pattern}")
            yield Literal(for_gdal(source)), options
        return
    own = for_gdal(source)
    with without_escapes(own) if "IMMUTABLE" in options else nullcontext(own) as name, warnings.catch_warnings():
        warnings.filterwarnings("ignore", f"File {DESCRIPTORS}/")  # which has no extension, GDAL says
        warnings.filterwarnings("ignore", f".*{OUR_OPTION.pattern}")
        try:
            yield Literal(name or own), options if name else {}
        except Exception as error:
            if name not in (own, None):
                error.args = tuple(str(each).replace(str(name), source) for each in error.args)
            raise


def is_immutable(path: Path) -> bool:
    """Whether a file is an SQLite database that no program has open with changes beside it."""
    has_live_wal = wal_bytes(path) > 0 and path.with_name(path.name + "-shm").exists()
    return is_sqlite(path) and not has_live_wal


def is_sqlite(path: Path) -> bool:
    """Whether a file is an SQLite database."""
    return _start(path).startswith(_SQLITE_MAGIC)


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_APPLICATION + 4)
    except (OSError, SwathError):  # the latter of a server: opening it will tell
        return b""


def wal_bytes(path: Path) -> int:
    """Size of a SQLite database's write-ahead log; 0 where there is none."""
    try:
        return path.with_name(path.name + "-wal").stat().st_size
    except OSError:
        return 0


@contextmanager
def collected(into: list[str]) -> Iterator[None]:
    """Gather what GDAL and pyogrio warn of, once each, instead of printing it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            for text in in_our_words([" ".join(str(warning.message).split()) for warning in caught]):
                if text not in into:
                    into.append(text)


def read_info(
    source: str, layer: str | None = None, *, count: bool = False, encoding: str | None = None
) -> tuple[dict[str, Any], list[str]]:
    """What pyogrio says of a layer, and what was warned of meanwhile.

    Args:
        source: the dataset.
        layer: its name; None for the first one.
        count: walk all features where the format does not keep their number.
        encoding: of a Shapefile's text, whatever it declares.
    """
    notes: list[str] = []
    with configured(), collected(notes), opening(source, encoding) as (name, options):
        info = pyogrio.core.read_info(name, layer=layer, force_feature_count=count, **options)
    return info, notes


@contextmanager
def open_batches(
    source: str,
    layer: str | None,
    rows: int,
    *,
    fids: bool = False,
    columns: Sequence[str] | None = None,
    skip: int = 0,
    where: str | None = None,
    bbox: tuple[float, float, float, float] | None = None,
    encoding: str | None = None,
    checks: RowChecks | None = None,
) -> Iterator[tuple[dict[str, Any], Any]]:
    """A layer as a stream of Arrow record batches of at most `rows` rows; yields pyogrio's meta and the pyarrow reader.

    Of these columns where they are named; without the first `skip`, those for which `where` holds or that meet `bbox`; text of a
    Shapefile in an encoding that it does not declare, and rows as `checks` leaves them.

    Dates with times come as text, which OGR marks as such and writes back as they were: Arrow's own type would give a
    time zone to those without one.
    """
    with (
        opening(source, encoding) as (name, options),
        pyogrio.raw.open_arrow(
            name,
            layer=layer,
            batch_size=rows,
            use_pyarrow=True,
            return_fids=fids or (checks is not None and checks.wants_fids),
            columns=columns,
            skip_features=skip,
            where=where,
            bbox=bbox,
            datetime_as_string=True,
            **options,
        ) as (meta, reader),
    ):
        yield meta, _plain(meta, reader, checks, fids=fids)


@contextmanager
def open_sql(name: str, query: str) -> Iterator[Any]:
    """What a query in the dataset's own SQL gives, as a pyarrow reader."""
    with pyogrio.raw.open_arrow(Literal(name), sql=query, use_pyarrow=True) as (_, reader):
        yield reader


class _Plain:
    """Record batches under other column names, of sound rows, and codes for what OGR makes a dictionary of: coded domains."""

    def __init__(self, reader: Any, names: list[str], checks: RowChecks | None, without: int | None) -> None:
        self._reader, self._checks, self._names, self._without = reader, checks, names, without
        fields = [
            pa.field(name, _code_type(field.type), field.nullable, field.metadata)
            for field, name in zip(reader.schema, names, strict=True)
        ]
        if without is not None:
            del fields[without]
        self.schema = pa.schema(fields, reader.schema.metadata)

    def read_next_batch(self) -> Any:
        """The next batch; StopIteration after the last."""
        columns = self._reader.read_next_batch().columns
        # The dictionary's positions are the codes (GDAL, ogrlayerarrow.cpp); one that is not in the domain is beyond its end.
        columns = [column.indices if pa.types.is_dictionary(column.type) else column for column in columns]
        if self._checks:
            columns = self._checks.checked(columns, self._names)
        if self._without is not None:
            del columns[self._without]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    @property
    def found(self) -> Found | None:
        """What was found in the latest batch; None where rows are not looked at."""
        return self._checks.found if self._checks else None

    def __iter__(self) -> Iterator[Any]:
        """All batches that are left."""
        return self

    def __next__(self) -> Any:
        """The next batch."""
        return self.read_next_batch()


def domains(schema: Any) -> list[str]:
    """The fields of an Arrow schema of OGR's that have a domain: a list or range of allowed values, which no batch carries."""
    return [field.name for field in schema if (field.metadata or {}).get(b"GDAL:OGR:domain_name")]


def _code_type(kind: Any) -> Any:
    return kind.index_type if pa.types.is_dictionary(kind) else kind


def _plain(meta: dict[str, Any], reader: Any, checks: RowChecks | None, *, fids: bool) -> Any:
    """The reader with its geometry column and its fields under the names that they have here; feature ids where they are wanted.

    The geometry is found by its Arrow extension type; the fields are the last columns beside it, in their order.
    """
    is_geometry = [(field.metadata or {}).get(_EXTENSION) in _WKB_EXTENSIONS for field in reader.schema]
    names, fields = list(reader.schema.names), field_names(meta)
    plain = [at for at, each in enumerate(is_geometry) if not each]
    for at, name in zip(plain[len(plain) - len(fields) :], fields, strict=True):
        names[at] = name
    if any(is_geometry):
        names[is_geometry.index(True)] = geometry_column(meta)
    has_fids = len(plain) > len(fields)
    if checks and has_fids:
        checks.fid = names[plain[0]]
    return _Plain(reader, names, checks, None if fids or not has_fids else plain[0])


@contextmanager
def reads(label: str, *, after: int = 0) -> Iterator[None]:
    """Translate what reading raises, after so many features.

    Raises:
        DataError: what OGR or Arrow raised, about the source `label`.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise translated(error, label, writing=False, after=after) from error


def release() -> None:
    """Give back what Arrow's pool holds for later."""
    pa.default_memory_pool().release_unused()


def translated(
    error: Exception, source: str, *, writing: bool, space_is_short: bool = False, after: int = 0
) -> SwathError:
    """What an exception of pyogrio, Arrow or SQLite means.

    Args:
        error: what was raised.
        source: the source's name, for the message.
        writing: whether the output was being written, and not the source read.
        after: features that had been read by then.
        space_is_short: whether the output may have been larger than the disk or a file-size limit leaves room for.
    """
    words = one_line(error)
    if isinstance(error, SwathError):
        return error
    if diagnose(error) == "memory":
        return MemoryExceeded(f"{source}: an allocator was refused: {words}")
    return (
        _of_writing(error, words, source, space_is_short)
        if writing
        else DataError(f"{source} cannot be read to its end{_behind(after)}: {words}", hint=_damage_hint(words))
    )


def _behind(rows: int) -> str:
    return f", after {rows} features" if rows else ""


def _damage_hint(words: str) -> str:
    return DAMAGED_HINT if speaks_of_damage(words) else ""


def _of_writing(error: Exception, words: str, source: str, space_is_short: bool) -> SwathError:
    failed = f"writing the output of {source} failed: {words}"
    if "NULL geometry" in words:
        hint = "write a .gpkg, or ask for --min-area-sqm, which drops them"
        return OutputError(f"FlatGeobuf cannot hold the null or empty geometries of {source}", hint=hint)
    if _OF_2GB.search(words):
        full = f"writing the output of {source} failed: a file of the Shapefile has reached the 2 GiB that it can have"
        return OutputError(full, hint="write a .gpkg, .fgb or .parquet")
    if isinstance(error, (pyogrio.errors.FieldError, pyogrio.errors.GeometryError, pyogrio.errors.CRSError)):
        return OutputError(failed)
    if isinstance(error, (OSError, RuntimeError)):  # pyogrio's errors of datasets and layers are of the latter
        kind = diagnose(error)
        if kind == "disk full" or (space_is_short and kind != "other"):
            return OutputError(f"writing the output of {source} failed: {FULL} ({words})", hint=FULL_HINT)
        return OutputError(failed)
    return JobFailed(f"{source}: unexpected {type(error).__name__}: {words}")

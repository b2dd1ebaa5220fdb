"""What is measured against whom: the table of the benchmarks, as data. Goals are ratios of wall seconds, swath ÷ peer."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Peer:
    """Another program for the same result.

    Attributes:
        name: as the table shows it.
        script: in `peers/`, run with `SOURCE DESTINATION` and `arguments` by the peers' interpreter.
        modules: what it imports; where one is missing the peer is said to be missing.
        arguments: after source and destination.
        reads_only: it writes nothing, and prints how many features it read.
        goal: ratio that swath should reach, None where no goal was set.
    """

    name: str
    script: str
    modules: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    reads_only: bool = False
    goal: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One job, and its peers.

    Attributes:
        name: as `--only` takes it.
        what: the job in words.
        kind: `raster` or `vector`.
        scene: its source, a key of `scenes.SCENES`.
        arguments: of `swath KIND SOURCE DESTINATION`.
        peers: whom it is measured against, in the same rounds.
        least_sqm: threshold of a vector's filter, for the comparison.
    """

    name: str
    what: str
    kind: str
    scene: str
    arguments: tuple[str, ...]
    peers: tuple[Peer, ...] = field(default=())
    least_sqm: float = 0


def _raster(name: str, what: str, scene: str, codec: str, goals: dict[str, float]) -> Entry:
    return Entry(
        name, f"{what}, {codec}", "raster", scene, ("--operation", "normalise", "--compress", codec, "--predictor", "2"),
        tuple(
            Peer(peer, f"{script}.py", modules, (codec,), goal=goals.get(script))
            for peer, script, modules in (
                ("two-thread rasterio script", "rasterio_two_threads", ("rasterio",)),
                ("gdal_calc, GDAL 3.13", "gdal_calc", ("osgeo.gdal_array", "osgeo_utils")),
                ("gdal raster scale, GDAL 3.13", "gdal_scale", ("osgeo.gdal",)),
                ("rioxarray and dask", "rioxarray_dask", ("rioxarray", "dask")),
            )
        ),
    )  # fmt: skip


READING = "only reading, Arrow"


def _vector(name: str, what: str, scene: str, least: int, crs: str, *, sql: bool, goal: float | None = None) -> Entry:
    arguments = (str(least), crs)
    peers = [Peer(READING, "read_arrow.py", ("pyogrio", "pyarrow"), reads_only=True, goal=goal)]
    if sql:  # GeoPackage's own SQL has areas; on Shapefiles GDAL's SQLite took 76 s, and FlatGeobuf has none
        peers.append(Peer("GDAL 3.13, SQL", "gdal_sql.py", ("osgeo.gdal",), arguments))
    peers += [
        Peer("SedonaDB", "sedona.py", ("sedonadb", "geoarrow.pyarrow"), arguments),
        Peer("geopandas, Arrow", "geopandas_arrow.py", ("geopandas", "pyarrow"), arguments),
    ]
    return Entry(name, what, "vector", scene, ("--min-area-sqm", str(least)), tuple(peers), least)


ENTRIES = (
    _raster("w1-lzw", "W1: normalise tiles", "tiled.tif", "lzw", {"rasterio_two_threads": 1.0, "gdal_calc": 0.80}),
    _raster("w1-zstd", "W1: normalise tiles", "tiled.tif", "zstd", {"rasterio_two_threads": 1.05, "gdal_calc": 0.75}),
    _raster("w1-strips", "W1: normalise strips", "strips.tif", "lzw", {}),
    _vector("v1", "V1: parcels, 6 % kept", "parcels.gpkg", 5000, "geographic", sql=True, goal=2.0),
    _vector("v3", "V3: projected parcels", "laea.gpkg", 5000, "projected", sql=True),
    _vector("v4", "V4: parcels, 67 % kept", "parcels.gpkg", 1000, "geographic", sql=True),
    _vector("v5", "V5: FlatGeobuf", "parcels.fgb", 5000, "geographic", sql=False),
    _vector("v6", "V6: Shapefile", "parcels.shp", 5000, "geographic", sql=False),
)

# Entries that are no ratio to a peer: `single.py` measures them.
STARTUP_GOAL_SECONDS = 0.5
PLANNING_GOAL_SECONDS = 0.3
GUARDS_GOAL = 1.03

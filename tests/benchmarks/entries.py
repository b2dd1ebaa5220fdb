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
        is_limit: it writes nothing, and prints as JSON the `seconds` that count and how many `bytes` it encoded.
        goal: ratio that swath should reach, None where no goal was set.
        peak_goal: the same of the peaks.
        is_bimodal: its speed differs between its processes: its fastest run counts, of five or more.
    """

    name: str
    script: str
    modules: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    reads_only: bool = False
    is_limit: bool = False
    goal: float | None = None
    peak_goal: float | None = None
    is_bimodal: bool = False

    @property
    def writes(self) -> bool:
        """Whether it has a result that is a file."""
        return not (self.reads_only or self.is_limit)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a peer's pixels may be from ours, where the arithmetic is not ours; by default not at all.

    Attributes:
        absolute: in the pixels' units.
        relative: of the peer's pixel.
        share: of the pixels that may be further away, or valid in one result alone.
        overviews: absolute, of the overviews of a COG.
    """

    absolute: float = 0
    relative: float = 0
    share: float = 0
    overviews: float = 0


EXACT = Tolerance()


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
        tolerance: of a raster's pixels, for the comparison.
        suffix: of the results; empty: the kind's own.
    """

    name: str
    what: str
    kind: str
    scene: str
    arguments: tuple[str, ...]
    peers: tuple[Peer, ...] = field(default=())
    least_sqm: float = 0
    tolerance: Tolerance = EXACT
    suffix: str = ""


GDAL = ("osgeo.gdal",)
CALC = ("gdal_calc, GDAL 3.13", "gdal_calc.py", ("osgeo.gdal_array", "osgeo_utils"))
DASK = ("rioxarray and dask", "rioxarray_dask.py", ("rioxarray", "dask"))


def _normalise(name: str, scene: str, codec: str, *goals: tuple[float | None, float | None]) -> Entry:
    """W1; goals are wall and peak, peer by peer."""
    peers = (
        ("codec's limit, all cores", "codec_limit.py", ("rasterio",)),
        ("two-thread rasterio script", "rasterio_two_threads.py", ("rasterio",)),
        CALC,
        ("gdal raster scale, GDAL 3.13", "gdal_programs.py", GDAL),
        DASK,
        ("textbook loop", "textbook.py", ("rasterio",)),
    )
    jobs = {"gdal_programs.py": "scale", "gdal_calc.py": "normalise", "rioxarray_dask.py": "normalise"}
    return Entry(
        name, f"W1: normalise {'strips' if 'strips' in scene else 'tiles'}, {codec}", "raster", scene,
        ("--operation", "normalise", "--compress", codec, "--predictor", "2"),
        tuple(
            Peer(peer, script, modules, (codec, *filter(None, [jobs.get(script)])), is_limit=script == "codec_limit.py",
                 goal=wall, peak_goal=peak)
            for (peer, script, modules), (wall, peak) in zip(peers, goals or [(None, None)] * len(peers), strict=True)
        ),
    )  # fmt: skip


def _raster(name: str, what: str, scene: str, arguments: str, *peers: Peer, tolerance: Tolerance = EXACT) -> Entry:
    """A job with ZSTD and predictor 2."""
    codec = ("--compress", "zstd", "--level", "1", "--predictor", "2", "--block-size", "512")
    return Entry(name, what, "raster", scene, (*arguments.split(), *codec), peers, tolerance=tolerance)


def _programs(name: str, job: str, goal: float) -> Peer:
    return Peer(f"{name}, GDAL 3.13", "gdal_programs.py", GDAL, ("zstd", job), goal=goal)


def _focal(name: str, what: str, scene: str) -> Entry:
    dask = Peer("dask, map_overlap", DASK[1], (*DASK[2], "scipy"), ("zstd", "focal"), goal=0.45, peak_goal=0.30)
    arguments = "--operation focal --statistic mean --size 15"
    # SciPy's running sums are float64, and rounded to float32 at the end.
    return _raster(name, what, scene, arguments, dask, tolerance=Tolerance(relative=1e-6))


RASTERS = (
    _normalise(
        "w1-lzw", "scene.tif", "lzw", (1.15, None), (0.95, 0.80), (0.75, 0.40), (None, None), (0.60, 0.25), (0.35, 0.06)
    ),
    _normalise(
        "w1-zstd", "scene.tif", "zstd", (1.25, None), (0.95, 0.80), (0.70, 0.40), (None, None), (0.60, 0.25), (0.35, 0.06)
    ),
    _normalise("w1-strips", "scene-strips.tif", "lzw"),
    Entry(
        "w2", "W2: NDVI", "raster", "bands.tif",
        ("--operation", "expression", "--expr", "(b2 - b1) / (b2 + b1)", "--compress", "zstd", "--predictor", "2"),
        tuple(Peer(*peer, ("zstd", "ndvi"), goal=0.70, peak_goal=0.30) for peer in (CALC, DASK)),
    ),
    _focal("w3", "W3: focal mean 15 x 15", "whole.tif"),
    _focal("w3-holes", "W3: the same, with nodata", "scene.tif"),
    _raster(
        "w4", "W4: copy to COG", "scene.tif", "--cog", _programs("COG driver", "cog", 0.60),
        tolerance=Tolerance(overviews=1),
    ),
    _raster(
        "w4n", "W4n: normalise to COG", "scene.tif", "--operation normalise --cog",
        _programs("COG driver", "cog-scale", 0.50), tolerance=Tolerance(overviews=1e-6),
    ),
    # Both transform to an eighth of a pixel, GDAL chunk by chunk and swath piece by piece; neighbours are 70 apart (rms).
    _raster(
        "w5", "W5: warp to EPSG:3857", "scene.tif", "--operation warp --to-crs EPSG:3857 --resampling bilinear",
        _programs("gdalwarp", "warp", 0.90), tolerance=Tolerance(absolute=50, share=1e-3),
    ),
    # Its shades are rounded from float32 and float64.
    _raster(
        "w6", "W6: hillshade", "heights.tif", "--operation terrain --attribute hillshade",
        _programs("gdaldem", "hillshade", 0.70), tolerance=Tolerance(absolute=1),
    ),
)  # fmt: skip


READING = "only reading, Arrow"
BOX = "2,42,18,54"  # a fifth of the parcels' envelopes
# Goals, wall and peak, by the peer's script.
_Goals = dict[str, tuple[float | None, float | None]]


def _vector(name: str, what: str, scene: str, least: int, goals: _Goals, *more: str, crs: str = "geographic") -> Entry:
    """A filter by area; `more` are `--where` and `--bbox` with their values, of which only GDAL's peer knows."""
    peers = (
        (READING, "read_arrow.py", ("pyogrio", "pyarrow")),
        ("GDAL 3.13, SQL", "gdal_sql.py", ("osgeo.gdal",)),
        ("SedonaDB", "sedona.py", ("sedonadb", "geoarrow.pyarrow")),
        ("geopandas, Arrow", "geopandas_arrow.py", ("geopandas", "pyarrow")),
    )
    arguments = (str(least), crs, *more[1::2])
    return Entry(
        name, what, "vector", scene, ("--min-area-sqm", str(least), *more),
        tuple(
            Peer(*peer, () if peer[0] == READING else arguments, reads_only=peer[0] == READING,
                 goal=goals[peer[1]][0], peak_goal=goals[peer[1]][1])
            for peer in peers if peer[1] in goals
        ),
        least,
    )  # fmt: skip


def _parquet(name: str, what: str, scene: str, least: int, wall: float, peak: float) -> Entry:
    """A filter by area into GeoParquet; goals are against the faster peer, which has been SedonaDB: of the other, the time's."""
    peers = (
        ("SedonaDB", "sedona.py", ("sedonadb", "geoarrow.pyarrow")),
        ("DuckDB", "duck.py", ("duckdb", "duckdb_ext")),
    )
    return Entry(
        name, what, "vector", scene, ("--min-area-sqm", str(least)),
        tuple(
            Peer(*peer, (str(least), "geographic"), goal=wall, peak_goal=peak if peer[0] == "SedonaDB" else None,
                 is_bimodal=peer[0] == "DuckDB")
            for peer in peers
        ),
        least, suffix=".parquet",
    )  # fmt: skip


_NONE = (None, None)
ENTRIES = (
    *RASTERS,
    _vector("v1", "V1: parcels, 6 % kept", "parcels.gpkg", 5000, {
        "read_arrow.py": (1.3, None), "gdal_sql.py": (0.85, None), "sedona.py": (0.65, 0.5), "geopandas_arrow.py": (0.18, 0.08),
    }),
    _vector("v2", "V2: four times as many", "many.gpkg", 5000, {
        "read_arrow.py": _NONE, "gdal_sql.py": (0.75, None), "sedona.py": (0.60, 0.5), "geopandas_arrow.py": (0.13, 0.025),
    }),
    _vector("v3", "V3: projected parcels", "laea.gpkg", 5000, {
        "read_arrow.py": _NONE, "gdal_sql.py": (1.0, None), "sedona.py": (0.6, None), "geopandas_arrow.py": _NONE,
    }, crs="projected"),
    _vector("v4", "V4: parcels, 67 % kept", "parcels.gpkg", 330, {
        "read_arrow.py": _NONE, "gdal_sql.py": (0.90, None), "sedona.py": (0.95, None), "geopandas_arrow.py": _NONE,
    }),
    # No SQL: GDAL's SQLite took 76 s on Shapefiles, and a FlatGeobuf has none with areas.
    _vector("v5", "V5: FlatGeobuf", "parcels.fgb", 5000, {
        "read_arrow.py": _NONE, "sedona.py": (0.70, 0.6), "geopandas_arrow.py": _NONE,
    }),
    _vector("v6", "V6: Shapefile", "parcels.shp", 5000, {
        "read_arrow.py": _NONE, "sedona.py": (0.95, 0.6), "geopandas_arrow.py": _NONE,
    }),
    _parquet("v7", "V7: GeoPackage to GeoParquet", "parcels.gpkg", 5000, 0.75, 0.6),
    _vector("v8", "V8: attribute, box and area", "parcels.gpkg", 2000, {"gdal_sql.py": (1.0, None)},
            "--where", "zone = 'meadow' AND value < 45000", "--bbox", BOX),
    _parquet("v10", "V10: GeoParquet to GeoParquet", "parcels.parquet", 5000, 0.90, 0.6),
)  # fmt: skip

# Entries that are no ratio to a peer: `single.py` measures them.
STARTUP_GOAL_SECONDS = 0.5
PLANNING_GOAL_SECONDS = 0.3
GUARDS_GOAL = 1.03
FEWER_PIXELS = 96  # how many times smaller the raster is that peaks are compared with; of parcels see `scenes.MANY`
PEAK_GOAL = 1.03
VECTOR_PEAK_GOAL = 1.05
STRIPS_GOAL = 1.05  # wall seconds, strips ÷ tiles

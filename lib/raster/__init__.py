"""Rasters, window by window.

Pure: `windows` (arithmetic), `layout` and `plan` (how a job is cut up, what it costs). Of pixels: `operations`, `validity`. Of
datasets: `sources` (headers, readers), `formats` (opening, creating), `carried` and `tags` (metadata), `gdal` (what rasterio does
not reach), `faults` (what GDAL raises). `engine` and `profile` do the work; `verify`, `checks` and `recompute` check it. No
vectors here, no processes, no publishing.
"""

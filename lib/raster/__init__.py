"""Rasters, window by window.

Pure: `windows` (arithmetic), `terms` and `plan` (what a job costs and how it is cut up). Of pixels: `operations`, `masks`. Of
datasets: `facts` (headers), `formats` (opening, creating), `carried` (metadata), `faults` (what GDAL raises). `engine` and
`profile` do the work; `verification`, `recompute` and `verify_plan` check it. No vectors here, no processes, no publishing.
"""

"""Rasters: windows and plans are pure; formats, masks and operations serve the engine, which alone does I/O."""

"""Vectors: batches, areas and plans are pure; sinks and the engine do I/O, in one pass over Arrow batches."""

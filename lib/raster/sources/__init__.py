"""Where pixels come from. A source knows its grid, bands and blocks and opens readers; a reader belongs to one thread.

A source is added as a module here that has the two classes of `dataset.py`.
"""

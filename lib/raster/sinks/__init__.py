"""Where pixels go. A sink knows its format's layout, memory and disk; what a pixel is worth is the operation's business.

`encode` makes a tile's bytes (one encoder a worker thread), `tiles` appends them to a TIFF (one writer), `directory` finds a
TIFF's tile tables. Nothing here reads a source.
"""

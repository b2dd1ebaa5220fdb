"""One Prefect task per concern; each runs a Job in its capped child (`capped.py`) and emits its artifacts.

Nothing here opens a dataset: that happens in the child. How runs end is in `states.py`.
"""

from tasks.logs import install

# Before a flow begins: its process's stderr is somebody's log.
install()

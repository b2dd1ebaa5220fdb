"""What Prefect schedules and its UI triggers: parameters in, tasks composed, a Report out. Also the terminal's door (cli.py).

Thin: a loop with arithmetic in it belongs in `lib`. Nothing here opens a dataset.
"""

import os

# Before anything of Prefect is imported: what we start tells nobody that it ran.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
# An embedded API that builds its database on a busy machine needs more than Prefect's 20 seconds.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")

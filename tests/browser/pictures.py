"""Take the pictures of the README and the guide anew: `python -m tests.browser.pictures`, some three minutes.

Runs the tests of this folder, which keep a screenshot of what they see in build/screenshots/; the three that are chosen go to
deployments/pictures/, in 256 colours. Look at each before it is committed.
"""

import subprocess
import sys
from pathlib import Path

from PIL import Image

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parents[1]
_PICTURES = _ROOT / "deployments" / "pictures"
# A form that is filled in, the page of a run that completed, and the report with its picture of memory.
_CHOSEN = ("form", "run", "report")


def main() -> int:
    """Take them; the exit code of the tests."""
    taken = subprocess.run([sys.executable, "-m", "pytest", "-q", _HERE], cwd=_ROOT, check=False)
    if taken.returncode == 0:
        _PICTURES.mkdir(exist_ok=True)
        for name in _CHOSEN:
            with Image.open(_ROOT / "build" / "screenshots" / f"{name}.png") as screenshot:
                screenshot.convert("RGB").quantize(256).save(_PICTURES / f"{name}.png", optimize=True)
    return taken.returncode


if __name__ == "__main__":
    sys.exit(main())

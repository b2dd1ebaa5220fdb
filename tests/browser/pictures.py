"""Take the pictures of the README and the guide anew: `python -m tests.browser.pictures`, some three minutes.

Runs the tests of this folder, which keep a screenshot of what they see in build/screenshots/; the three that are chosen go to
deployments/pictures/, in 256 colours. Look at each before it is committed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parents[1]
_PICTURES = _ROOT / "deployments" / "pictures"
# A short name, as pictures show it; what is there already is nobody's business: it is an error.
_SCENES = Path(tempfile.gettempdir()) / "survey"
# A form that is filled in, the page of a run that completed, and the report with its picture of memory.
_CHOSEN = ("form", "run", "report")


def main() -> int:
    """Take them; the exit code of the tests."""
    _SCENES.mkdir()
    try:
        tests = [sys.executable, "-m", "pytest", "-q", "--durations=20", _HERE]
        taken = subprocess.run(tests, cwd=_ROOT, env=os.environ | {"SCENES": str(_SCENES)}, check=False)
    finally:
        shutil.rmtree(_SCENES)
    if taken.returncode == 0:
        _PICTURES.mkdir(exist_ok=True)
        for name in _CHOSEN:
            with Image.open(_ROOT / "build" / "screenshots" / f"{name}.png") as screenshot:
                screenshot.convert("RGB").quantize(256).save(_PICTURES / f"{name}.png", optimize=True)
    return taken.returncode


if __name__ == "__main__":
    sys.exit(main())

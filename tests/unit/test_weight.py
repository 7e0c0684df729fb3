"""Each process pays for what it uses: memory is a bar, and the start a promise."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {"PIL", "babel", "imagecodecs", "jinja2", "numpy", "pydicom", "starlette", "uvicorn"}


def test_no_process_loads_pixels_pages_or_the_demonstration_but_those_that_use_them() -> None:
    """All processes begin with this module; a new import here would cost each of them 50 MB."""
    script = "import sys, negatoscope.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "negatoscope.serve" in loaded
    assert not HEAVY & set(loaded)

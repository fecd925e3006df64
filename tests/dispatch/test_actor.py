"""What a worker's process imports before it knows the user's home."""

from __future__ import annotations

import subprocess
import sys


def test_what_ray_loads_first_loads_no_library_that_looks_for_the_home() -> None:
    code = (
        "import sys, evomerge.dispatch.actor; print({'torch', 'huggingface_hub', 'nltk'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"

"""``python -m tests.benchmarks [bench|scale] [--quick]`` from the top of the checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from benchmarks.command import main

    sys.exit(main(sys.argv[1:]))

"""``python -m affgen`` is the ``affgen`` command."""

from __future__ import annotations

import sys

from affgen.cli import main

if __name__ == "__main__":
    sys.exit(main())

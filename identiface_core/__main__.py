"""`python -m identiface_core` is the same as `identiface`."""

from __future__ import annotations

import sys

from identiface_core.cli import main

if __name__ == "__main__":
    sys.exit(main())

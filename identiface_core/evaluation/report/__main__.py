"""`python -m identiface_core.evaluation.report JSON`: the page of a benchmark anew, from its JSON."""

import sys

from .page import main

sys.exit(main())

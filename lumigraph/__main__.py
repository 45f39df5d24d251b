"""`python -m lumigraph` is the same as the command `lumigraph`."""

import sys

from lumigraph.cli import main

sys.exit(main())

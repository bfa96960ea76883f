"""`python -m metrics_adapter`."""

import sys

from metrics_adapter.app import main

sys.exit(main(sys.argv[1:]))

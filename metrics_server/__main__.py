"""`python -m metrics_server`."""

import sys

from metrics_server.app import main

sys.exit(main(sys.argv[1:]))

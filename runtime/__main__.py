"""`python -m runtime`."""

import sys

from runtime.app import main

sys.exit(main(sys.argv[1:]))

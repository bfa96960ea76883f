"""`python -m vertical_autoscaler`."""

import sys

from vertical_autoscaler.app import main

sys.exit(main(sys.argv[1:]))

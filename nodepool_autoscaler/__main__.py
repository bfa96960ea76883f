"""`python -m nodepool_autoscaler`."""

import sys

from nodepool_autoscaler.app import main

sys.exit(main(sys.argv[1:]))

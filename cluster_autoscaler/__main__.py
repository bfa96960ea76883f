"""`python -m cluster_autoscaler`."""

import sys

from cluster_autoscaler.app import main

sys.exit(main(sys.argv[1:]))

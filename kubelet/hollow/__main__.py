"""`python -m kubelet.hollow`."""

import sys

from kubelet.hollow.app import main

sys.exit(main(sys.argv[1:]))

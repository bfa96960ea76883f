"""`python -m csi_controllers`."""

import sys

from csi_controllers.app import main

sys.exit(main(sys.argv[1:]))

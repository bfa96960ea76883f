"""`python -m cloud`."""

import sys

from cloud.app import main

sys.exit(main(sys.argv[1:]))

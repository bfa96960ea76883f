"""`python -m block_storage`: the driver by hand."""

import sys

from block_storage.app import main

sys.exit(main(sys.argv[1:]))

"""`python -m controller_manager`."""

import sys

from controller_manager.app import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`python -m kube_proxy`."""

import sys

from kube_proxy.app import main

sys.exit(main(sys.argv[1:]))

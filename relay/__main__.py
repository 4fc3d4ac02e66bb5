"""`python -m relay` is `postferry`."""

import sys

from relay.cli import main

sys.exit(main())

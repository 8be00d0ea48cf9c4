"""`python -m qlab.cli`."""

import sys

from . import main

sys.exit(main())

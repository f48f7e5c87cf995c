"""`python -m hiddennet.sweep`."""

import sys

from hiddennet.sweep.command import main

sys.exit(main())

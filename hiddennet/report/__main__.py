"""`python -m hiddennet.report`."""

import sys

from hiddennet.report.command import main

sys.exit(main())

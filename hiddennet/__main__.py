"""`python -m hiddennet`: the console script."""

import sys

from hiddennet.cli import main

if __name__ == "__main__":
    sys.exit(main())

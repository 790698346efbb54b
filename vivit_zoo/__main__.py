"""`python -m vivit_zoo`, and `torchrun -m vivit_zoo train ...` without a script: the command line."""

import sys

from vivit_zoo.cli import main

if __name__ == "__main__":  # worker processes import this file, too
    sys.exit(main())

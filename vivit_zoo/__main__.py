"""The command line: `vivit-zoo`, `python -m vivit_zoo`, and `torchrun -m vivit_zoo train ...` without a script."""

import sys


def main() -> int:
    """Run the command line and return the exit code. Its imports are here, so that Ctrl-C during them is 130, too."""
    try:
        from vivit_zoo.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":  # worker processes import this file, too
    sys.exit(main())

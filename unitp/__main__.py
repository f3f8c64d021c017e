"""`python -m unitp`: the command line. `-m` puts the current folder first on the path of imports; nothing is meant to be there."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]

from unitp.cli import main

if __name__ == "__main__":
    main()

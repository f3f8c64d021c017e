"""`python -m unitp` runs the command line. `-m` puts the current folder first on the import path; it is removed."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]

from unitp.cli import main

if __name__ == "__main__":
    main()

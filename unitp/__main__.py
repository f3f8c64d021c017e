"""`python -m unitp`: the command line."""

from unitp.cli import main

if __name__ == "__main__":
    main()

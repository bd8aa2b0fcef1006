"""`python -m funcrt`: the same as the command `funcrt`."""

from funcrt.cli import main

if __name__ == "__main__":
    main()

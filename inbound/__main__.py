"""`python -m inbound`: the same as the `inbound` command."""

from inbound.operate.cli import main

if __name__ == "__main__":
    main()

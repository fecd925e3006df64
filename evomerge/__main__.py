"""`python -m evomerge` is the `evomerge` command."""

from evomerge.cli.main import main

if __name__ == "__main__":
    main()

"""`python -m app.cli`: the command line without the rest."""

from app.cli import main

if __name__ == "__main__":
    main()

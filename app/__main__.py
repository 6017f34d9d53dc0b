"""`python -m app` and the command `refund-agent`."""

from app.cli import main

if __name__ == "__main__":
    main()

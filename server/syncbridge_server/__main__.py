"""`python -m syncbridge_server`, the same as `syncbridge`."""

from syncbridge_server.cli import main

if __name__ == "__main__":
    main()

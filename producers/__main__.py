"""`python -m producers`: the watcher.

Imports only when run: its helper processes load this module too, and need nothing of it.
"""

if __name__ == "__main__":
    from producers.app import main

    main()

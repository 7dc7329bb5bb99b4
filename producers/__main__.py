"""`python -m producers`: the watcher.

Imports only when run, because its helper processes load this module too and need none of it.
"""

if __name__ == "__main__":
    from adapters.settings import told_briefly
    from producers.app import main

    with told_briefly():
        main()

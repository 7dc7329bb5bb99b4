"""`python -m producers`: the watcher.

Imports only when run, because its helper processes load this module too and need none of it.
"""

if __name__ == "__main__":
    from adapters.settings import exit_on_bad_settings
    from producers.app import main

    with exit_on_bad_settings():
        main()

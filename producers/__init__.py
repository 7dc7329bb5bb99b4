"""The watcher: keeps the `images` topic equal to the pictures that exist in a folder."""

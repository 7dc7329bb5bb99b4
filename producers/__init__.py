"""The watcher: keeps the `images` topic equal to the images that exist in its sources."""

"""The watcher: keeps the topic `images` in step with the images in its sources."""

"""The commands of `./image-search`."""

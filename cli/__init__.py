"""The commands behind `./image-search`."""

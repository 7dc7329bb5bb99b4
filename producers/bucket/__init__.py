"""One bucket, or whatever else fsspec lists, compared now and then."""

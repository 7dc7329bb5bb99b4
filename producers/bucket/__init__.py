"""One bucket, or another store of fsspec, which is listed at intervals."""

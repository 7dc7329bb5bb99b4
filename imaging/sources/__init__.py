"""Sources of images: folders, mounted file systems and buckets."""

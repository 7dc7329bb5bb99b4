"""Where images come from: folders, mounted file systems and buckets."""

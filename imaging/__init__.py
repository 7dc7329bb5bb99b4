"""Images: their sources, formats and metadata, and how they are decoded."""

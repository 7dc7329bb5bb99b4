"""Images: where they lie, what they hold, and how they are decoded."""

"""What the routes share: limits, access, problem documents, static files."""

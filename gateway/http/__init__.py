"""What every route shares: limits, access, problem documents, static files."""

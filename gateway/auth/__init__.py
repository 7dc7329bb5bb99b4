"""Who asks, and what is signed: access, receipts, cursors, privacy."""

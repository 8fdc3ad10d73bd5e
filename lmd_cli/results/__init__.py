"""What runs leave on disk: their folders and records, rows, and everything that is resumed."""

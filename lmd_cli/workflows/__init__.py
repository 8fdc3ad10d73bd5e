"""One module per command: what it does, from end to end."""

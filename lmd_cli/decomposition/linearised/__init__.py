"""The linearised network: what a decomposition leaves behind, and what runs on it."""

"""From a config to a network and its samples, and what both must do."""

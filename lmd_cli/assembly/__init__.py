"""Builds networks and data sets from a config, and states the contract that both must meet."""

"""Figures of one sample, of layers, of checks and of scores."""

"""Weights from files of strangers: read without running what they say, and strictly fitted."""

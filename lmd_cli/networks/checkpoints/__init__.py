"""Loads weights from untrusted files: no code of theirs is run, and every key must fit."""

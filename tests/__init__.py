"""The tests of lmd-cli: the same folders as the package, and ``support`` for their helpers."""

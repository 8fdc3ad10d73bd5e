"""Fuzzers of what comes from outside: any input ends in a result or in a message."""

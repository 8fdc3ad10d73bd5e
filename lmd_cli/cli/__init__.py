"""The command line: one module for each command, which parses options, calls a workflow, prints."""

"""The YAML that a run is described in: its schema, and how it is loaded."""

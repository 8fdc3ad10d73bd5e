"""The YAML config of a run: its schema and its loading."""

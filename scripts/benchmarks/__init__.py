"""What ``benchmark.py`` measures."""

"""A nuScenes root: its tables, the sensors of its vehicles, and its files, read and checked."""

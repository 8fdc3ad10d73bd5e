"""Detections: matched with annotations, and the sensors' parts of each."""

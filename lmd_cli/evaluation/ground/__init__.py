"""Predictions on the ground: where maps lie, annotated vehicles, and which sensor is decisive."""

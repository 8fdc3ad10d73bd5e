"""Scores of attribution methods against ground truth: recorded, or measured by interventions."""

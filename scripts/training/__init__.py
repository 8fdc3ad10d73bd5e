"""Training of the demo networks: data, targets, losses, loops, scores, cards."""

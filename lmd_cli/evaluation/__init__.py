"""The perturbation protocol of Appendix D.4, its metrics, and scores against known truth."""

"""HQ faces, (HQ, LQ) pairs and the naive degradation recipe."""

"""The predictor that works from a package alone."""

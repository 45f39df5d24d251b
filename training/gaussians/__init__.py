"""Method `gaussians`: whole views, a strategy for the number of Gaussians, one step for all."""

"""Method `gaussians4d`: Gaussians in space and time, and those among them that stand still."""

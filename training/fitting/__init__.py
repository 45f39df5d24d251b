"""Methods that fit a network to samples of one thing, not to photographs."""

"""Built-in scenes that move: what is in them at a time, and how they become a `Scene`."""

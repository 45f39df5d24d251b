"""Tables, plots and pages that a simulation ends in."""

"""Pure decisions: no clock, socket, file or environment. `now`, `rng` and tables come as arguments."""

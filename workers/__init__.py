"""Dramatiq's side of the house: the broker, the actors and the scheduler that feeds them."""

"""A second module of the game, imported by the first."""

GREETING = "well travelled"

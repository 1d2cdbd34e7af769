"""Loads in, replays through the real engine, runs out. The only place that plays the outside world in virtual time."""

"""The sample world: a small data set in DoIT's format, made from hand-written tables and rules."""

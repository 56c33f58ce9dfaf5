"""/1.0/events: the stream of lifecycle, operation and logging events, the same at every member."""

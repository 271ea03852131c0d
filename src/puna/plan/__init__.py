"""What a run needs and what it costs."""

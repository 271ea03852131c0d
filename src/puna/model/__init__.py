"""The decoder: its shape, its mathematics, and the formats its weights come in."""

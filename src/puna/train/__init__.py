"""One optimizer step, many times, safely."""

"""The decoder: its shape, its mathematics, and the formats its weights come in."""

from pathlib import Path

KERNELS = Path(__file__).with_name("kernels.cpp")  # the source of its C++ kernels

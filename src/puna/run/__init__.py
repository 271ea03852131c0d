"""What runs stages: artifacts, builds, the machine."""

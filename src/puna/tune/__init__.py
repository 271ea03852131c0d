"""What makes a base model one that answers: data, supervised stages, what was forgotten."""

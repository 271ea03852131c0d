"""Scores of a trained model, beside baselines on the same bytes."""

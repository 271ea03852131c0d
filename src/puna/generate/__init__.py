"""Prompt -> tokens: KV cache, sampling, one batched engine."""

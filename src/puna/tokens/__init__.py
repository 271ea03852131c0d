"""Clean documents -> tokenizer -> token shards -> batches."""

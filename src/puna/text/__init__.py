"""What several rooms know of text: characters, sentences, URLs, hashing, encoders and n-gram models."""

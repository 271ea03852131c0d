"""What several rooms know of text: characters, sentences, addresses."""

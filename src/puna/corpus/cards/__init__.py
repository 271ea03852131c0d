"""What a corpus is, told to people and to authorities."""

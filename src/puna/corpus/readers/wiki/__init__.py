"""XML dumps of wikis and their wikitext."""

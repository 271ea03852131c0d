"""Documents that say what is in a corpus: a data card, and the public summary that European law asks for.

Both are made of the settings and the counts alone, so equal corpora have equal cards.
"""

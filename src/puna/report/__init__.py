"""The page that a finished run leaves for people: what went in, what came out, whether it worked."""

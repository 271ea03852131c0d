"""Raw public data -> clean documents."""

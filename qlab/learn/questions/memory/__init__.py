"""Exercise set 01: memory math, from the fields of a config.json to the cards of a server."""

"""Exercise set 07, first part: AWQ, which scales channels before it rounds."""

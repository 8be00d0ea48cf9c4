"""What a stored number looks like: bit packing and number formats. Nothing here knows how the values were chosen."""

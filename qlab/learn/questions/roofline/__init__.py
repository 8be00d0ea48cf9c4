"""Exercise set 10: bounds on speed, from the bytes and operations of one product to tokens per second."""

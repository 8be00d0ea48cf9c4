"""Every figure of the course, as a pure function from data to a matplotlib figure."""

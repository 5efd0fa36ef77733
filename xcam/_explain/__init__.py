"""The verb `explain`: prepare once, then run."""

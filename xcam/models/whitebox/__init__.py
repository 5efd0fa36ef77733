"""The nets of White Box."""

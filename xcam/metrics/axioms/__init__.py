"""Metrics that ask whether maps keep an axiom that their paper states."""

"""Nets with large last feature maps, as the published code of CALM trains them."""

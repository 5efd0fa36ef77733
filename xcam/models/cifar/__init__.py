"""Nets for CIFAR, as LFI-CAM and ABN train them."""

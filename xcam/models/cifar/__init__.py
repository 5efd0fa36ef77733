"""The networks for CIFAR."""

"""The checks of the contract suites."""

"""Splittings: from the terms of a program to a fixed-point map T and its state. One file each."""

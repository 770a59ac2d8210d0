"""Capsules: a run with its code, environment, data and record in one file, out of a store and into another."""

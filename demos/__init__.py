"""Demonstrations of the shipped models."""

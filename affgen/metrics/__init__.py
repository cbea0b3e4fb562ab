"""The figures of the field: every number in a table of results is computed in this package."""

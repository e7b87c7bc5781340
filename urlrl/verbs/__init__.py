"""What the command line does, as functions that return plain data: one file per verb."""

"""The only file that joins edges to use cases."""

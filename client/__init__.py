"""The native client."""

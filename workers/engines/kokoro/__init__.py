"""Kokoro-82M with voice cloning on a bare CPU: the embedded default engine."""

"""Brokers that voicebus's is compared with, each a process that prints where it listens."""

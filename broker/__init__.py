"""The broker: a sans-IO core behind two ROUTER sockets."""

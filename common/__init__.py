"""What broker, workers, client and edge share: the wire, the errors, configuration, audio and voices."""

"""XTTS-v2: many languages, cloning from seconds of speech, best on a GPU."""

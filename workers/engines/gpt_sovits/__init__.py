"""GPT-SoVITS: a proxy to a server that runs its api_v2."""

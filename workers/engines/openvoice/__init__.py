"""OpenVoice v2: the tone colour of a voice, laid over the speech of another engine."""

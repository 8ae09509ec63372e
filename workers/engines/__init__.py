"""The engines that come with voicebus."""

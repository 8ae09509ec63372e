"""Workers: an agent that talks to brokers, and the engines it hosts in a child process."""

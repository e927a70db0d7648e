"""How a processor is timed: the protocol, the process that runs networks, the surroundings."""

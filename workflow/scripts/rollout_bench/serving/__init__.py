"""Online mode: loading a server, our own or anybody's."""

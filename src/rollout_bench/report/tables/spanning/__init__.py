"""Tables that several modes share: a module for each topic."""

"""Tables of what several modes have: a module for each matter."""

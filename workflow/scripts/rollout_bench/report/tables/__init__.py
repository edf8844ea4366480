"""Tables and the notes that belong to them: a module for each mode, and for what several modes have."""

"""Tables and the notes that belong to them: a module for each mode; in `spanning`, for what several modes have."""

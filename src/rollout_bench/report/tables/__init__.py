"""Tables and their notes: a module for each mode; `spanning` has tables that several modes share."""

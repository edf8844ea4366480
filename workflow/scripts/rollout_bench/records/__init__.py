"""What a launch leaves behind: records, their side files, and failures."""

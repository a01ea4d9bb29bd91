"""Objects that people declare: created, changed and deleted one at a time, each change compared with what is there."""

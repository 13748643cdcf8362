"""Tables, figures and progress for people. Imports nothing of the kit."""

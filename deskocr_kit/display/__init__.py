"""Tables, images and progress bars. Imports nothing else of this kit."""

"""Tables, from text to frames, and the shapes in which they hold readings."""

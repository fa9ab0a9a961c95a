"""The bundled training: settings, objectives, the loop, and many networks at once."""

"""The bundled engine, in this process or behind HTTP."""

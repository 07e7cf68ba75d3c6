"""The bundled serving backend: an engine that carries out directives. Needs the [serve] extra."""
